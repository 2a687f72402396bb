// The rows of linear's backward: formula, finite differences, precision.
#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"
#include "ops/product/linear_rows.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

/// (m, n): the sums of term(i, j, l) over l < k.
template <class Term>
Doubles sums(std::int64_t m, std::int64_t n, std::int64_t k, const Term& term) {
  Doubles result;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l) sum += term(i, j, l);
      result.push_back(sum);
    }
  }
  return result;
}

/// The sums of the columns of rows (m, n).
Doubles column_sums(const Doubles& rows, std::int64_t m, std::int64_t n) {
  return sums(1, n, m, [&](auto, auto j, auto i) { return rows.data()[i * n + j]; });
}

std::int64_t code(DType dtype) { return static_cast<std::int64_t>(dtype); }

/// The type of a bias' gradient: that of the operands, or the one that they are summed in.
std::int64_t sum_type(Value x, bool wide) {
  return code(wide && x.dtype() == DType::bf16 ? DType::f32 : x.dtype());
}

Case weight_gradient_case(std::int64_t m, std::int64_t k, std::int64_t n, bool wide) {
  return {.name = "linear_weight_gradient",
          .inputs = {{.shape = {m, k}}, {.shape = {m, n}}},
          .build =
              [wide](Tracer& tracer, Values x) {
                return tracer.apply(kLinearWeightGradient, x,
                                    {{"dtype", code(x[0].dtype())},
                                     {"bias_dtype", sum_type(x[0], wide)},
                                     {"axes", std::int64_t{1}}});
              },
          .oracle =
              [=](std::span<const Doubles> x) {
                const double *left = x[0].data(), *dy = x[1].data();
                return Outputs{
                    sums(k, n, m,
                         [=](auto i, auto j, auto l) { return left[l * k + i] * dy[l * n + j]; }),
                    column_sums(x[1], m, n)};
              },
          .same_bits_over_threads = false};
}

double gelu_slope(double x) {
  const double root = std::sqrt(2 / std::numbers::pi);
  const double t = std::tanh(root * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x);
}

Case gelu_backward_case(std::int64_t m, std::int64_t k, std::int64_t n, bool wide) {
  return {.name = "linear_gelu_backward",
          .inputs = {{.shape = {m, k}}, {.shape = {n, k}}, {.shape = {m, n}}},
          .build =
              [wide](Tracer& tracer, Values x) {
                return tracer.apply(kLinearGeluBackward, x, {{"dtype", sum_type(x[0], wide)}});
              },
          .oracle =
              [=](std::span<const Doubles> x) {
                const double *dy = x[0].data(), *weight = x[1].data();
                Doubles dh = sums(m, n, k, [=](auto i, auto j, auto l) {
                  return dy[i * k + l] * weight[j * k + l];
                });
                for (std::size_t i = 0; i < dh.size(); ++i) dh[i] *= gelu_slope(x[2][i]);
                return Outputs{dh, column_sums(dh, m, n)};
              },
          .same_bits_over_threads = false};
}

TEST_CASE("linear: the gradients of a weight and its bias by one row") {
  for (const bool wide : {false, true}) {
    check(weight_gradient_case(6, 4, 5, wide));
    check(weight_gradient_case(67, 31, 48, wide));
    check(weight_gradient_case(1, 1, 1, wide));
    check(weight_gradient_case(0, 3, 5, wide));
  }
}

TEST_CASE("linear: a product and the backward of the gelu before it by one row") {
  for (const bool wide : {false, true}) {
    check(gelu_backward_case(6, 4, 8, wide));
    check(gelu_backward_case(67, 31, 48, wide));
    check(gelu_backward_case(70, 5, 43, wide));
    check(gelu_backward_case(3, 1, 8, wide));
    check(gelu_backward_case(0, 3, 5, wide));
  }
}

TEST_CASE("linear: gradients of what does not fit are refused") {
  Tracer tracer;
  const auto input = [&](const char* name, const Shape& shape) {
    return tracer.input(name, DType::f32, shape);
  };
  const Value x = input("x", {2, 3}), dy = input("dy", {2, 5}), weight = input("w", {3, 5});
  const Value row = input("row", {3}), half = tracer.input("half", DType::bf16, {2, 5});
  const Attributes types = {
      {"dtype", code(DType::f32)}, {"bias_dtype", code(DType::f32)}, {"axes", std::int64_t{1}}};
  const auto apply = [&](const OpDef& op, std::initializer_list<Value> inputs) {
    tracer.apply(op, std::span(inputs.begin(), inputs.size()), types);
  };
  CHECK_NOTHROW(apply(kLinearWeightGradient, {x, dy}));
  CHECK_THROWS_AS(apply(kLinearWeightGradient, {weight, dy}), InvalidArgument);
  CHECK_THROWS_AS(apply(kLinearWeightGradient, {x, row}), InvalidArgument);
  CHECK_THROWS_AS(apply(kLinearWeightGradient, {x, half}), InvalidArgument);
  CHECK_NOTHROW(apply(kLinearGeluBackward, {dy, weight, x}));
  CHECK_THROWS_AS(apply(kLinearGeluBackward, {x, weight, x}), InvalidArgument);
  CHECK_THROWS_AS(apply(kLinearGeluBackward, {dy, weight, dy}), InvalidArgument);
}

}  // namespace
}  // namespace ashlar::test
