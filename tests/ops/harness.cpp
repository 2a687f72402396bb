#include "ops/harness.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/ops.hpp"
#include "graph/evaluate.hpp"
#include "runtime/thread_pool.hpp"

namespace ashlar::test {
namespace {

/// Serves memory `offset` bytes behind what the host gives.
class OffsetResource final : public MemoryResource {
 public:
  explicit OffsetResource(std::int64_t offset) : offset_(offset) {}

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override {
    return static_cast<std::byte*>(host_memory().allocate(bytes + offset_, category, stream)) +
           offset_;
  }
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override {
    host_memory().deallocate(static_cast<std::byte*>(pointer) - offset_, bytes + offset_, category,
                             stream);
  }
  std::int64_t offset_;
};

void set(const TensorView& view, std::size_t i, double x) {
  switch (view.dtype) {
    case DType::f64:
      view.as<double>()[i] = x;
      break;
    case DType::f32:
      view.as<float>()[i] = static_cast<float>(x);
      break;
    case DType::bf16:
      view.as<bf16>()[i] = bf16(static_cast<float>(x));
      break;
    default:
      view.as<std::int32_t>()[i] = static_cast<std::int32_t>(x);
  }
}

double get(const TensorView& view, std::size_t i) {
  switch (view.dtype) {
    case DType::f64:
      return view.as<double>()[i];
    case DType::f32:
      return view.as<float>()[i];
    case DType::bf16:
      return view.as<bf16>()[i];
    default:
      return view.as<std::int32_t>()[i];
  }
}

/// Inputs of an evaluation and the memory that they lie in.
class Bindings {
 public:
  explicit Bindings(MemoryResource& resource) : resource_(resource) {}
  void bind(const std::string& name, DType dtype, const Shape& shape, const Doubles& values) {
    buffers_.emplace_back(resource_, shape.elements() * size_of(dtype), Category::input);
    views_[name] = buffers_.back().view(dtype, shape);
    for (std::size_t i = 0; i < values.size(); ++i) set(views_[name], i, values[i]);
  }
  const std::map<std::string, TensorView>& views() const { return views_; }

 private:
  MemoryResource& resource_;
  std::vector<Buffer> buffers_;
  std::map<std::string, TensorView> views_;
};

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

bool is_wrt(const Input& input) { return !input.integer && input.differentiable; }

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

/// Every row can be differentiated in both modes, or says why not.
void check_rows(const Case& c, const Graph& graph) {
  for (const Node& node : graph.nodes) {
    const OpDef& op = *node.op;
    const bool both =
        op.stops_derivatives || op.expand != nullptr || (op.vjp != nullptr && op.jvp != nullptr);
    CHECK_MESSAGE(both != !op.not_differentiable.empty(), c.name, ": row '", op.name,
                  "' neither has rules nor says why not");
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

double rounded(double x, DType dtype) {
  if (dtype == DType::f32) return static_cast<float>(x);
  if (dtype == DType::bf16) return bf16(static_cast<float>(x));
  return x;
}

Doubles random_values(std::int64_t count, double low, double high, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Doubles values(static_cast<std::size_t>(count));
  for (double& v : values) v = low + (high - low) * static_cast<double>(random() >> 11) * 0x1p-53;
  return values;
}

std::vector<Doubles> random_inputs(const Case& c) {
  std::vector<Doubles> inputs;
  std::uint64_t seed = c.seed * 1000;
  for (const Input& input : c.inputs) {
    inputs.push_back(random_values(input.shape.elements(), input.low, input.high, ++seed));
    if (input.integer)
      for (double& v : inputs.back()) v = std::floor(v);
    if (!input.values.empty()) inputs.back() = input.values;
  }
  return inputs;
}

Result run(const Case& c, std::span<const Doubles> inputs, const Run& how) {
  OffsetResource resource(how.offset_bytes);
  Bindings bindings(resource);
  Tracer tracer;
  std::vector<Value> values, wrt;
  for (std::size_t k = 0; k < c.inputs.size(); ++k) {
    const DType dtype = c.inputs[k].integer ? DType::i32 : how.dtype;
    const std::string name = fmt::format("x{}", k);
    values.push_back(tracer.input(name, dtype, c.inputs[k].shape));
    bindings.bind(name, dtype, c.inputs[k].shape, inputs[k]);
    if (is_wrt(c.inputs[k])) wrt.push_back(values.back());
  }
  std::vector<Value> results = c.build(tracer, values);
  if (how.backward) {
    std::vector<Value> cotangents;
    for (std::size_t o = 0; o < results.size(); ++o) {
      const std::string name = fmt::format("g{}", o);
      const TensorType type = results[o].type();
      cotangents.push_back(tracer.input(name, type.dtype, type.shape));
      bindings.bind(name, type.dtype, type.shape,
                    how.cotangents.empty() ? Doubles(static_cast<std::size_t>(type.elements()), 1.0)
                                           : how.cotangents[o]);
    }
    for (const Value& gradient : vjp(tracer, results, cotangents, wrt, how.gradient_dtypes)) {
      REQUIRE_MESSAGE(gradient, c.name, ": an input has no gradient");
      results.push_back(gradient);
    }
  }
  const auto bound = [&](const char* name, const std::vector<Doubles>& directions) {
    std::vector<Value> inputs_of_wrt;
    for (std::size_t i = 0; i < directions.size(); ++i) {
      const TensorType type = wrt[i].type();
      inputs_of_wrt.push_back(tracer.input(fmt::format("{}{}", name, i), type.dtype, type.shape));
      bindings.bind(fmt::format("{}{}", name, i), type.dtype, type.shape, directions[i]);
    }
    return inputs_of_wrt;
  };
  const std::vector<Value> tangents = bound("t", how.tangents),
                           second = bound("s", how.second_cotangents);
  const auto append = [&](const std::vector<Value>& derivatives, std::span<const Value> like) {
    for (std::size_t i = 0; i < derivatives.size(); ++i) {
      const TensorType type = like[i].type();
      results.push_back(derivatives[i] ? derivatives[i]
                                       : constant(tracer, 0, type.dtype, type.shape));
    }
  };
  const std::vector<Value> primal = results;
  if (!tangents.empty()) append(jvp(tracer, primal, wrt, tangents), primal);
  if (!second.empty()) append(vjp(tracer, std::span(primal).last(wrt.size()), second, wrt), wrt);
  check_rows(c, tracer.graph());
  for (std::size_t i = 0; i < results.size(); ++i)
    tracer.output(fmt::format("y{:03}", i), contiguous(results[i]));

  std::unique_ptr<ThreadPool> pool;
  if (how.threads > 0) pool = std::make_unique<ThreadPool>(how.threads);
  RunContext context = how.context;
  context.pool = pool.get();
  const Tensors tensors = evaluate(tracer.graph(), bindings.views(), context, resource,
                                   {.cpu = "test", .threads = std::max(1, how.threads)});
  Result result;
  for (const auto& [name, tensor] : tensors) {
    const TensorView& view = tensor.second;
    Doubles numbers(static_cast<std::size_t>(view.elements()));
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = get(view, i);
    result.values.push_back(std::move(numbers));
    result.bytes.emplace_back(view.data, view.data + view.bytes());
  }
  return result;
}

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
