// Layer norm, alone and fused with the residual addition.
#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

constexpr double kEpsilon = 1e-5;

Doubles norm_formula(const Doubles& x, const Doubles& weight, const Doubles& bias) {
  const std::size_t n = weight.size();
  Doubles y(x.size());
  for (std::size_t row = 0; row < x.size(); row += n) {
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < n; ++i) mean += x[row + i] / static_cast<double>(n);
    for (std::size_t i = 0; i < n; ++i)
      variance += (x[row + i] - mean) * (x[row + i] - mean) / static_cast<double>(n);
    for (std::size_t i = 0; i < n; ++i)
      y[row + i] = (x[row + i] - mean) / std::sqrt(variance + kEpsilon) * weight[i] + bias[i];
  }
  return y;
}

Case norm(const Shape& shape) {
  return {
      .name = "layer_norm " + to_string(shape),
      .inputs = {{.shape = shape, .low = -2, .high = 3},
                 {.shape = {shape[-1]}},
                 {.shape = {shape[-1]}}},
      .build = [](Tracer&,
                  Values x) { return std::vector{layer_norm(x[0], x[1], x[2], kEpsilon)}; },
      .oracle = [](std::span<const Doubles> x) { return Outputs{norm_formula(x[0], x[1], x[2])}; }};
}

Case add_norm(const Shape& shape, bool use_sum, bool use_norm) {
  return {.name = "add_layer_norm " + to_string(shape) + (use_sum ? " sum" : "") +
                  (use_norm ? " norm" : ""),
          .inputs = {{.shape = shape},
                     {.shape = shape},
                     {.shape = {shape[-1]}, .differentiable = use_norm},
                     {.shape = {shape[-1]}, .differentiable = use_norm}},
          .build =
              [=](Tracer&, Values x) {
                const auto [total, y] = add_layer_norm(x[0], x[1], x[2], x[3], kEpsilon);
                std::vector<Value> outputs;
                if (use_sum) outputs.push_back(total);
                if (use_norm) outputs.push_back(y);
                return outputs;
              },
          .oracle =
              [=](std::span<const Doubles> x) {
                Doubles total = x[0];
                for (std::size_t i = 0; i < total.size(); ++i) total[i] += x[1][i];
                Outputs outputs;
                if (use_sum) outputs.push_back(total);
                if (use_norm) outputs.push_back(norm_formula(total, x[2], x[3]));
                return outputs;
              }};
}

}  // namespace

TEST_CASE("ops: layer norm equals its formula and derivative") {
  check(norm({3, 5}));
  check(norm({2, 3, 33}));
  check(norm({300, 7}));
  check(norm({2, 768}));
}

TEST_CASE("ops: fused addition and layer norm, whichever results are used") {
  check(add_norm({4, 19}, true, true));
  check(add_norm({4, 19}, false, true));
  check(add_norm({4, 19}, true, false));
  check(add_norm({150, 64}, true, true));
}

TEST_CASE("ops: fused addition and layer norm give the bits of the two ops") {
  Case fused = add_norm({5, 40}, true, true);
  Case apart = fused;
  apart.build = [](Tracer&, Values x) {
    const Value total = add(x[0], x[1]);
    return std::vector{total, layer_norm(total, x[2], x[3], kEpsilon)};
  };
  const std::vector<Doubles> x = random_inputs(fused);
  for (const DType dtype : {DType::f32, DType::bf16})
    CHECK(run(fused, x, {.dtype = dtype}).bytes == run(apart, x, {.dtype = dtype}).bytes);
}

}  // namespace ashlar::test
