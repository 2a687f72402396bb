#include "ops/harness.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace ashlar::test {
namespace {

double largest(const Doubles& x) {
  double most = 0;
  for (const double v : x) most = std::max(most, std::abs(v));
  return most;
}

double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Every element within `tolerance` of the largest magnitude; NaN fails.
void check_close(const std::string& what, const Doubles& actual, const Doubles& expected,
                 double tolerance) {
  REQUIRE_MESSAGE(actual.size() == expected.size(), what);
  const double bound = tolerance * std::max(largest(expected), 1e-30);
  double worst = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]);
    if (!(error <= worst)) {
      worst = error;
      where = i;
    }
  }
  if (actual.empty()) return;
  CHECK_MESSAGE(worst <= bound, what, ": element ", where, " is ", actual[where], ", not ",
                expected[where], "; allowed ", bound);
}

std::vector<Doubles> random_cotangents(const std::vector<Doubles>& outputs, std::uint64_t seed) {
  std::vector<Doubles> cotangents;
  for (const Doubles& y : outputs)
    cotangents.push_back(random_values(static_cast<std::int64_t>(y.size()), -1, 1, ++seed));
  return cotangents;
}

/// Directional derivatives: each element of small inputs, else three random directions.
void check_finite_differences(const Case& c, const std::vector<Doubles>& inputs,
                              const std::vector<Doubles>& cotangents,
                              std::span<const Doubles> gradients) {
  std::size_t next = 0;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    if (!is_wrt(c.inputs[k])) continue;
    const Doubles& gradient = gradients[next++];
    const std::size_t n = inputs[k].size();
    const bool each = n <= 48;
    Doubles expected, actual;
    for (std::size_t trial = 0; trial < (each ? n : 3); ++trial) {
      Doubles direction = random_values(static_cast<std::int64_t>(n), -1, 1, 77 + trial);
      if (each) {
        std::fill(direction.begin(), direction.end(), 0.0);
        direction[trial] = 1;
      }
      const double step = 1e-5;
      double difference = 0;
      for (const double sign : {1.0, -1.0}) {
        std::vector<Doubles> moved = inputs;
        for (std::size_t i = 0; i < n; ++i) moved[k][i] += sign * step * direction[i];
        const Result result = run(c, moved, {});
        for (std::size_t o = 0; o < cotangents.size(); ++o)
          difference += sign * dot(result.values[o], cotangents[o]);
      }
      expected.push_back(difference / (2 * step));
      actual.push_back(dot(gradient, direction));
    }
    check_close(fmt::format("{}: vjp of input {} against finite differences", c.name, k), actual,
                expected, 1e-6);
  }
}

double sum_of_dots(std::span<const Doubles> a, std::span<const Doubles> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += dot(a[i], b[i]);
  return sum;
}

/// What `run` gives at inputs + step x tangents and at inputs - step x tangents, as a quotient.
std::vector<Doubles> central_difference(const Case& c, const std::vector<Doubles>& inputs,
                                        const std::vector<Doubles>& tangents, const Run& how) {
  const double step = 1e-5;
  std::vector<Doubles> quotient;
  for (const double sign : {1.0, -1.0}) {
    std::vector<Doubles> moved = inputs;
    std::size_t next = 0;
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      if (!is_wrt(c.inputs[k])) continue;
      for (std::size_t i = 0; i < moved[k].size(); ++i)
        moved[k][i] += sign * step * tangents[next][i];
      ++next;
    }
    const Result result = run(c, moved, how);
    quotient.resize(result.values.size());
    for (std::size_t o = 0; o < result.values.size(); ++o) {
      quotient[o].resize(result.values[o].size());
      for (std::size_t i = 0; i < quotient[o].size(); ++i)
        quotient[o][i] += sign * result.values[o][i] / (2 * step);
    }
  }
  return quotient;
}

/// jvp, jvp of vjp and vjp of vjp, along one direction through all inputs.
void check_forward_and_second_order(const Case& c, const std::vector<Doubles>& inputs,
                                    const std::vector<Doubles>& cotangents) {
  std::vector<Doubles> tangents, others;
  for (const Input& input : c.inputs) {
    if (!is_wrt(input)) continue;
    tangents.push_back(random_values(input.shape.elements(), -1, 1, 501 + tangents.size()));
    others.push_back(random_values(input.shape.elements(), -1, 1, 601 + others.size()));
  }
  const Run how{.backward = true,
                .cotangents = cotangents,
                .tangents = tangents,
                .second_cotangents = others};
  const std::vector<Doubles> all = run(c, inputs, how).values;
  const auto expected =
      central_difference(c, inputs, tangents, {.backward = true, .cotangents = cotangents});
  const std::size_t outputs = cotangents.size(), n = tangents.size();
  const std::span gradients(all.data() + outputs, n);
  const std::span derivatives(all.data() + outputs + n, outputs + n);
  const std::span second(all.data() + 2 * (outputs + n), n);
  double scale = 0;  // of second derivatives: where all are zero, rounding of the gradients counts
  for (std::size_t i = 0; i < n; ++i)
    scale = std::max({scale, largest(expected[outputs + i]), largest(gradients[i])});
  for (std::size_t i = 0; i < outputs + n; ++i) {
    const bool first = i < outputs;
    const double own = largest(expected[i]);
    const double bound = first || own == 0 ? 1e-6 : 1e-6 * std::max(1.0, scale / own);
    check_close(
        fmt::format("{}: {} {} against finite differences", c.name,
                    first ? "jvp of output" : "jvp of vjp of input", first ? i : i - outputs),
        derivatives[i], expected[i], bound);
  }
  const auto close = [&](const char* what, double a, double b, double magnitude) {
    CHECK_MESSAGE(std::abs(a - b) <= 1e-10 * std::max(magnitude, 1e-300), c.name, ": ", what, " ",
                  a, " and ", b);
  };
  const auto magnitude = [](std::span<const Doubles> values) {
    double sum = 0;
    for (const Doubles& v : values) sum += std::sqrt(dot(v, v) * static_cast<double>(v.size()));
    return sum;
  };
  close("vjp and jvp are not adjoint:", sum_of_dots(derivatives.first(outputs), cotangents),
        sum_of_dots(gradients, tangents), magnitude(gradients));
  close("the second derivatives of reverse and forward mode are not adjoint:",
        sum_of_dots(derivatives.subspan(outputs), others), sum_of_dots(second, tangents),
        magnitude(second) + magnitude(derivatives.subspan(outputs)));
}

/// Tangents in a narrow type against those in f64. Second derivatives subtract: their errors are
/// held against the largest value of any kind.
void check_derivative_precision(const Case& c, const std::vector<Doubles>& inputs,
                                const std::vector<Doubles>& cotangents, DType dtype) {
  Run how{.backward = true, .cotangents = cotangents};
  std::vector<Doubles> narrow = inputs;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    for (double& v : narrow[k]) v = c.inputs[k].integer ? v : rounded(v, dtype);
    if (!is_wrt(c.inputs[k])) continue;
    how.tangents.push_back(random_values(c.inputs[k].shape.elements(), -1, 1, 801 + k));
    for (double& v : how.tangents.back()) v = rounded(v, dtype);
  }
  for (Doubles& g : how.cotangents)
    for (double& v : g) v = rounded(v, dtype);
  const Result exact = run(c, narrow, how);
  how.dtype = dtype;
  const Result actual = run(c, narrow, how);
  double scale = 1e-30;
  for (const Doubles& values : exact.values) scale = std::max(scale, largest(values));
  const double epsilon =
      dtype == DType::f32 ? c.f32_tolerance * 0x1p-24 : c.bf16_tolerance * 0x1p-9;
  for (std::size_t i = 0; i < exact.values.size(); ++i) {
    REQUIRE(actual.values[i].size() == exact.values[i].size());
    double worst = 0;
    for (std::size_t e = 0; e < exact.values[i].size(); ++e) {
      const double error = std::abs(actual.values[i][e] - exact.values[i][e]);
      if (!(error <= worst)) worst = error;
    }
    CHECK_MESSAGE(worst <= 4 * epsilon * scale, c.name, " in ", name_of(dtype), ": derivative ", i,
                  " is off by ", worst, " of ", scale);
  }
}

void check_precision(const Case& c, const std::vector<Doubles>& inputs,
                     const std::vector<Doubles>& cotangents, DType dtype) {
  std::vector<Doubles> exact_inputs = inputs, exact_cotangents = cotangents;
  for (std::size_t k = 0; k < inputs.size(); ++k)
    for (double& v : exact_inputs[k]) v = c.inputs[k].integer ? v : rounded(v, dtype);
  for (Doubles& g : exact_cotangents)
    for (double& v : g) v = rounded(v, dtype);
  const Result exact = run(c, exact_inputs, {.backward = true, .cotangents = exact_cotangents});
  const Result actual =
      run(c, exact_inputs, {.dtype = dtype, .backward = true, .cotangents = exact_cotangents});
  const double tolerance =
      dtype == DType::f32 ? c.f32_tolerance * 0x1p-24 : c.bf16_tolerance * 0x1p-9;
  for (std::size_t i = 0; i < exact.values.size(); ++i) {
    const bool forward = i < cotangents.size();
    check_close(fmt::format("{} in {}: {} {}", c.name, name_of(dtype),
                            forward ? "output" : "gradient", forward ? i : i - cotangents.size()),
                actual.values[i], exact.values[i], tolerance);
  }
}

/// bf16 values with gradients in the types that the inputs name.
void check_wide_gradients(const Case& c, const std::vector<Doubles>& inputs,
                          const std::vector<Doubles>& cotangents) {
  std::vector<DType> wide, narrow;
  for (const Input& input : c.inputs) {
    if (is_wrt(input)) wide.push_back(input.gradient);
  }
  const Run base{.dtype = DType::bf16, .backward = true, .cotangents = cotangents};
  Run how = base;
  how.gradient_dtypes = wide;
  const Result expected = run(c, inputs, base);
  const Result actual = run(c, inputs, how);
  for (std::size_t i = cotangents.size(); i < actual.values.size(); ++i) {
    CHECK_MESSAGE(actual.bytes[i].size() ==
                      actual.values[i].size() *
                          static_cast<std::size_t>(size_of(wide[i - cotangents.size()])),
                  c.name, ": gradient ", i - cotangents.size(), " has another type than asked for");
    check_close(fmt::format("{}: gradient {} of bf16 values in {}", c.name, i - cotangents.size(),
                            name_of(wide[i - cotangents.size()])),
                actual.values[i], expected.values[i], c.bf16_tolerance * 0x1p-8);
  }
}

void check_same_bits(const Case& c, const std::vector<Doubles>& inputs,
                     const std::vector<Doubles>& cotangents, DType dtype) {
  const Run base{.dtype = dtype, .backward = true, .cotangents = cotangents};
  const auto expected = run(c, inputs, base).bytes;
  const auto same = [&](const std::string& what, const Run& how) {
    CHECK_MESSAGE(run(c, inputs, how).bytes == expected, c.name, " in ", name_of(dtype),
                  ": bits depend on ", what);
  };
  same("the run", base);
  Run moved = base;
  moved.offset_bytes = 3 * kAlignment;
  same("the addresses", moved);
  if (!c.same_bits_over_threads) return;
  for (const int threads : {1, 3}) {
    Run threaded = base;
    threaded.threads = threads;
    same("the number of threads", threaded);
  }
}

/// Each input alone: the gradient is that of the full backward, and rows honour `needed`.
void check_needed(const Case& c, const std::vector<Doubles>& inputs,
                  const std::vector<Doubles>& cotangents, const Result& all) {
  std::size_t next = cotangents.size();
  for (std::size_t k = 0; k < c.inputs.size(); ++k) {
    if (!is_wrt(c.inputs[k])) continue;
    Case one = c;
    for (std::size_t j = 0; j < c.inputs.size(); ++j)
      if (j != k) one.inputs[j].differentiable = false;
    const Result alone = run(one, inputs, {.backward = true, .cotangents = cotangents});
    check_close(fmt::format("{}: gradient of input {} alone", c.name, k), alone.values.back(),
                all.values[next++], 1e-12);
  }
}

}  // namespace

void check(const Case& c) {
  INFO(c.name);
  const std::vector<Doubles> inputs = random_inputs(c);
  const Result forward = run(c, inputs, {});
  if (c.oracle) {
    const std::vector<Doubles> expected = c.oracle(inputs);
    REQUIRE(expected.size() == forward.values.size());
    for (std::size_t o = 0; o < expected.size(); ++o)
      check_close(fmt::format("{}: output {} against the formula", c.name, o), forward.values[o],
                  expected[o], 1e-12);
  }
  const std::vector<Doubles> cotangents = random_cotangents(forward.values, c.seed);
  const Result all = run(c, inputs, {.backward = true, .cotangents = cotangents});
  check_finite_differences(c, inputs, cotangents,
                           std::span(all.values).subspan(forward.values.size()));
  check_needed(c, inputs, cotangents, all);
  check_forward_and_second_order(c, inputs, cotangents);
  for (const DType dtype : c.dtypes) {
    check_precision(c, inputs, cotangents, dtype);
    check_derivative_precision(c, inputs, cotangents, dtype);
    check_same_bits(c, inputs, cotangents, dtype);
    if (dtype == DType::bf16) check_wide_gradients(c, inputs, cotangents);
  }
}

}  // namespace ashlar::test
