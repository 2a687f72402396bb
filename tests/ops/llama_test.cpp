// The ops of Llama-style models: rms norm, silu, swiglu, rotary position embedding.
#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

constexpr double kEpsilon = 1e-5;

Doubles rms_formula(const Doubles& x, const Doubles& weight) {
  const std::size_t n = weight.size();
  Doubles y(x.size());
  for (std::size_t row = 0; row < x.size(); row += n) {
    double square = 0;
    for (std::size_t i = 0; i < n; ++i) square += x[row + i] * x[row + i] / static_cast<double>(n);
    for (std::size_t i = 0; i < n; ++i)
      y[row + i] = x[row + i] / std::sqrt(square + kEpsilon) * weight[i];
  }
  return y;
}

Case norm(const Shape& shape) {
  return {.name = "rms_norm " + to_string(shape),
          .inputs = {{.shape = shape, .low = -2, .high = 3}, {.shape = {shape[-1]}}},
          .build = [](Tracer&, Values x) { return std::vector{rms_norm(x[0], x[1], kEpsilon)}; },
          .oracle = [](std::span<const Doubles> x) { return Outputs{rms_formula(x[0], x[1])}; }};
}

double silu_formula(double x) { return x / (1 + std::exp(-x)); }

/// Half-split rotation, one pair at a time, with positions given per row.
Doubles rotary_formula(const Doubles& x, const Shape& shape, std::int64_t heads, double base,
                       const Doubles& positions) {
  const auto channels = static_cast<std::size_t>(shape[2]), h = static_cast<std::size_t>(heads);
  const std::size_t size = channels / h, half = size / 2;
  Doubles y(x.size());
  for (std::size_t row = 0; row < positions.size(); ++row)
    for (std::size_t head = 0; head < h; ++head)
      for (std::size_t i = 0; i < half; ++i) {
        const double angle = positions[row] * std::pow(base, -2.0 * static_cast<double>(i) /
                                                                 static_cast<double>(size));
        const std::size_t low = row * channels + head * size + i, high = low + half;
        y[low] = x[low] * std::cos(angle) - x[high] * std::sin(angle);
        y[high] = x[high] * std::cos(angle) + x[low] * std::sin(angle);
      }
  return y;
}

Case turned(const Shape& shape, int heads, double base, std::int64_t offset, bool given) {
  Case c{.name = "rotary " + to_string(shape) + (given ? " at given positions" : ""),
         .inputs = {{.shape = shape}},
         .build = [=](Tracer&, Values x) {
           const Value positions = given ? x[1] : Value();
           return std::vector{
               rotary(x[0], heads, {.base = base, .offset = offset, .positions = positions})};
         }};
  if (given)
    c.inputs.push_back({.shape = {shape[0], shape[1]}, .low = 0, .high = 99, .integer = true});
  c.oracle = [=](std::span<const Doubles> x) {
    Doubles positions;
    for (std::int64_t row = 0; row < shape[0] * shape[1]; ++row) {
      const double p =
          given ? x[1][static_cast<std::size_t>(row)] : static_cast<double>(row % shape[1]);
      positions.push_back(p + static_cast<double>(offset));
    }
    return Outputs{rotary_formula(x[0], shape, heads, base, positions)};
  };
  return c;
}

}  // namespace

TEST_CASE("ops: rms norm equals its formula and derivative") {
  check(norm({3, 5}));
  check(norm({2, 3, 33}));
  check(norm({300, 7}));
  check(norm({2, 768}));
}

TEST_CASE("ops: silu and swiglu equal their formulas and derivatives") {
  check({.name = "silu",
         .inputs = {{.shape = {3, 35}, .low = -6, .high = 6}},
         .build = [](Tracer&, Values x) { return std::vector{silu(x[0])}; },
         .oracle =
             [](std::span<const Doubles> x) {
               Doubles y;
               for (const double v : x[0]) y.push_back(silu_formula(v));
               return Outputs{y};
             }});
  check({.name = "swiglu",
         .inputs = {{.shape = {2, 3, 19}, .low = -6, .high = 6}, {.shape = {2, 3, 19}}},
         .build = [](Tracer&, Values x) { return std::vector{swiglu(x[0], x[1])}; },
         .oracle =
             [](std::span<const Doubles> x) {
               Doubles y;
               for (std::size_t i = 0; i < x[0].size(); ++i)
                 y.push_back(silu_formula(x[0][i]) * x[1][i]);
               return Outputs{y};
             }});
}

TEST_CASE("ops: silu far out is x or 0, and its slope 1 or 0") {
  const Case c{.name = "silu", .inputs = {{.shape = {4}}}, .build = [](Tracer&, Values x) {
                 return std::vector{silu(x[0])};
               }};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Result r = run(c, std::vector<Doubles>{{-1e30, -500, 500, 1e30}},
                         {.dtype = dtype, .backward = true, .tangents = {{1, 1, 1, 1}}});
    CHECK(r.values[0] == Doubles{0, 0, rounded(500, dtype), rounded(1e30, dtype)});
    CHECK(r.values[1] == Doubles{0, 0, 1, 1});
    CHECK(r.values[2] == Doubles{0, 0, 1, 1});
    CHECK(r.values[3] == Doubles{0, 0, 0, 0});
  }
}

TEST_CASE("ops: rotary turns pairs by their positions") {
  check(turned({2, 5, 12}, 3, 10000, 0, false));
  check(turned({1, 40, 2 * 20}, 2, 500000, 7, false));
  check(turned({2, 3, 150}, 1, 10000, 0, false));
  check(turned({2, 17, 2 * 34}, 2, 100, -2, true));
}

TEST_CASE("ops: rotary makes scores depend on the distance alone") {
  const Case c{.name = "scores",
               .inputs = {{.shape = {1, 1, 16}}, {.shape = {1, 1, 16}}},
               .build = [](Tracer&, Values x) {
                 std::vector<Value> scores;
                 for (const std::int64_t start : {0, 100})
                   scores.push_back(sum(multiply(rotary(x[0], 1, {.offset = start + 5}),
                                                 rotary(x[1], 1, {.offset = start}))));
                 return scores;
               }};
  const Result r = run(c, random_inputs(c), {});
  CHECK(r.values[0][0] == doctest::Approx(r.values[1][0]).epsilon(1e-12));
}

TEST_CASE("ops: operands of Llama-style ops that do not fit are refused") {
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {2, 3, 12}), i = tracer.input("i", DType::i32, {3});
  CHECK_THROWS_AS(rms_norm(x, x), InvalidArgument);
  CHECK_THROWS_AS(rms_norm(x, tracer.input("w", DType::bf16, {12})), InvalidArgument);
  CHECK_THROWS_AS(swiglu(x, tracer.input("u", DType::f32, {2, 3, 11})), InvalidArgument);
  CHECK_THROWS_AS(silu(i), InvalidArgument);
  CHECK_THROWS_AS(rotary(x, 4), InvalidArgument);  // heads of 3
  CHECK_THROWS_AS(rotary(x, 2, {.positions = i}), InvalidArgument);
  CHECK_THROWS_AS(rotary(x, 2, {.base = 0}), InvalidArgument);
}

}  // namespace ashlar::test
