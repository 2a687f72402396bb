// matmul, linear and linear_gelu: formula, finite differences, precision.
#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

struct Product {
  std::string name;
  std::int64_t batch, m, k, n;
  bool transpose_a = false, transpose_b = false, shared_b = false;
};

Outputs textbook(const Product& p, std::span<const Doubles> x) {
  Doubles y;
  for (std::int64_t b = 0; b < p.batch; ++b) {
    const double* left = x[0].data() + b * p.m * p.k;
    const double* right = x[1].data() + (p.shared_b ? 0 : b * p.k * p.n);
    for (std::int64_t i = 0; i < p.m; ++i) {
      for (std::int64_t j = 0; j < p.n; ++j) {
        double sum = 0;
        for (std::int64_t l = 0; l < p.k; ++l)
          sum += left[p.transpose_a ? l * p.m + i : i * p.k + l] *
                 right[p.transpose_b ? j * p.k + l : l * p.n + j];
        y.push_back(sum);
      }
    }
  }
  return {y};
}

Case matmul_case(const Product& p) {
  const Shape a = p.transpose_a ? Shape{p.batch, p.k, p.m} : Shape{p.batch, p.m, p.k};
  const Shape one = p.transpose_b ? Shape{p.n, p.k} : Shape{p.k, p.n};
  const Shape b = p.shared_b ? one : Shape{p.batch, one[0], one[1]};
  return {.name = p.name,
          .inputs = {{.shape = a}, {.shape = b}},
          .build =
              [p](Tracer&, Values x) {
                return std::vector{matmul(
                    x[0], x[1], {.transpose_a = p.transpose_a, .transpose_b = p.transpose_b})};
              },
          .oracle = [p](std::span<const Doubles> x) { return textbook(p, x); },
          .same_bits_over_threads = false};
}

TEST_CASE("matmul: transposed and batched operands, missing axes, empty and odd extents") {
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      for (const bool shared : {false, true}) {
        const std::string kind = std::string("matmul") + (ta ? " a^T" : "") + (tb ? " b^T" : "") +
                                 (shared ? " shared b" : "");
        check(matmul_case({kind, 3, 4, 5, 2, ta, tb, shared}));
        check(matmul_case({kind + " odd", 1, 37, 19, 23, ta, tb, shared}));
      }
      check(matmul_case({"matmul without rows", 2, 0, 3, 2, ta, tb, false}));
      check(matmul_case({"matmul without inner extent", 2, 3, 0, 2, ta, tb, true}));
      check(matmul_case({"matmul of one", 1, 1, 1, 1, ta, tb, true}));
    }
  }
}

TEST_CASE("matmul: a bf16 product may stay in f32") {
  Case c = matmul_case({"matmul to f32", 1, 33, 70, 9});
  c.build = [](Tracer&, Values x) {
    const Value y =
        matmul(x[0], x[1], {.dtype = x[0].dtype() == DType::bf16 ? DType::f32 : x[0].dtype()});
    if (x[0].dtype() == DType::bf16) CHECK(y.dtype() == DType::f32);
    return std::vector{y};
  };
  c.inputs[0].gradient = DType::f32;
  check(c);
  c.dtypes = {};
  const auto inputs = random_inputs(c);
  std::vector<Doubles> rounded_inputs = inputs;
  for (Doubles& x : rounded_inputs)
    for (double& v : x) v = rounded(v, DType::bf16);
  const auto exact = run(c, rounded_inputs, {}).values[0];
  const auto wide = run(c, rounded_inputs, {.dtype = DType::bf16}).values[0];
  for (std::size_t i = 0; i < exact.size(); ++i) CHECK(std::abs(exact[i] - wide[i]) < 1e-4);
}

TEST_CASE("matmul: what does not fit is refused by name") {
  Tracer tracer;
  const Value a = tracer.input("a", DType::f32, {2, 3}), b = tracer.input("b", DType::f32, {4, 5});
  const Value i = tracer.input("i", DType::i32, {3, 5});
  const Value batch = tracer.input("batch", DType::f32, {7, 3, 5});
  const Value three = tracer.input("three", DType::f32, {2, 2, 3});
  CHECK_THROWS_AS(matmul(a, b), InvalidArgument);
  CHECK_THROWS_AS(matmul(a, i), InvalidArgument);
  CHECK_THROWS_AS(matmul(three, batch), InvalidArgument);
  CHECK_THROWS_AS(matmul(a, batch), InvalidArgument);
}

struct Layer {
  std::string name;
  std::int64_t rows, k, n;
  bool bias = true, gelu = false;
};

double gelu_formula(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

Case layer_case(const Layer& l) {
  Case c{
      .name = l.name,
      .inputs = {{.shape = {2, l.rows, l.k}}, {.shape = {l.k, l.n}}},
      .build =
          [l](Tracer&, Values x) {
            const Value bias = l.bias ? x[2] : Value();
            return std::vector{l.gelu ? linear_gelu(x[0], x[1], bias) : linear(x[0], x[1], bias)};
          },
      .oracle =
          [l](std::span<const Doubles> x) {
            Outputs y = textbook({"", 1, 2 * l.rows, l.k, l.n}, x);
            for (std::size_t i = 0; i < y[0].size(); ++i) {
              if (l.bias) y[0][i] += x[2][i % static_cast<std::size_t>(l.n)];
              if (l.gelu) y[0][i] = gelu_formula(y[0][i]);
            }
            return y;
          },
      .same_bits_over_threads = false};
  c.inputs[1].gradient = DType::f32;
  if (l.bias) c.inputs.push_back({.shape = {l.n}, .gradient = DType::f32});
  return c;
}

TEST_CASE("linear: with and without bias and gelu") {
  for (const bool bias : {true, false}) {
    for (const bool gelu : {true, false}) {
      const std::string kind =
          std::string("linear") + (gelu ? "_gelu" : "") + (bias ? "" : " without bias");
      check(layer_case({kind, 3, 4, 5, bias, gelu}));
      check(layer_case({kind + " odd", 67, 31, 43, bias, gelu}));
      check(layer_case({kind + " of one", 1, 1, 1, bias, gelu}));
      check(layer_case({kind + " without rows", 0, 3, 5, bias, gelu}));
    }
  }
}

TEST_CASE("linear: what does not fit is refused") {
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {2, 3}), w = tracer.input("w", DType::f32, {3, 5});
  const Value bias = tracer.input("b", DType::f32, {3}),
              odd = tracer.input("o", DType::f32, {4, 5});
  CHECK_THROWS_AS(linear(x, odd, Value()), InvalidArgument);
  CHECK_THROWS_AS(linear(x, w, bias), InvalidArgument);
  CHECK_THROWS_AS(linear_gelu(x, w, bias), InvalidArgument);
  CHECK_NOTHROW(linear(x, w, Value()));
}

}  // namespace
}  // namespace ashlar::test
