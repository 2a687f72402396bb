// The rows of linear's gradients against their formulas on random operands. Over the fake library,
// and on a GPU.
#pragma once

#include <array>
#include <numbers>

#include "ops/product/rows.hpp"
#include "support/random_products.hpp"

namespace ashlar::test {

/// Rows (m), and the layer's extents: x (m, k), dy (m, n).
struct GradientCase {
  std::int64_t m, k, n;
  DType dtype = DType::f32;   // of the operands
  DType weight = DType::f32;  // of the weight's gradient
  DType bias = DType::f32;    // of the bias'
  std::int64_t shift = 0;     // elements between every operand and an aligned address
};

inline GradientCase random_gradient_case(std::mt19937_64& random) {
  const bool half = random() % 2 == 0;
  const auto type = [&] { return half && random() % 2 == 0 ? DType::bf16 : DType::f32; };
  return {.m = pick(random, {0, 1, 3, 40, 67}),
          .k = pick(random, {0, 1, 5, 24, 50}),
          .n = pick(random, {0, 1, 16, 33, 40}),
          .dtype = half ? DType::bf16 : DType::f32,
          .weight = type(),
          .bias = type(),
          .shift = pick(random, {0, 0, 0, 1})};
}

/// What a result may differ by: sums in f32, rounded as `dtype` is; `roundings` of them where what
/// is summed was rounded before.
inline double error_of(DType dtype, std::int64_t terms, int roundings) {
  const double sums = static_cast<double>(terms + 4) * std::numeric_limits<float>::epsilon();
  return sums + (dtype == DType::bf16 ? roundings / 256.0 : 0);
}

template <class Expected>
void expect_near(const TensorView& got, std::int64_t i, const Expected& expected, double error) {
  const auto [value, magnitude] = expected;
  if (!(std::abs(element(got, i) - value) <= error * magnitude))
    FAIL("element ", i, ": ", element(got, i), " instead of ", value);
}

struct Sum {
  double value = 0, magnitude = 0;
  void add(double term) { *this = {value + term, magnitude + std::abs(term)}; }
};

/// A run of a kernel with `workspace` bytes of Memory.
template <class Memory>
void run_row(void (*row)(const KernelArguments&), std::int64_t workspace,
             const Attributes& attributes, std::span<const TensorView> inputs,
             std::span<const TensorView> outputs, StreamRef stream) {
  const Memory memory(static_cast<std::size_t>(workspace + 64));
  RunContext context;
  context.stream = stream;
  row({context, attributes, inputs, outputs, memory.data() + 64});
  stream.synchronize();
}

template <class Memory>
void check_weight_gradient(const GradientCase& c, std::mt19937_64& random, StreamRef stream = {}) {
  const Operand<Memory> x(c.dtype, c.m * c.k, c.shift, random);
  const Operand<Memory> dy(c.dtype, c.m * c.n, c.shift, random);
  const Operand<Memory> dweight(c.weight, c.k * c.n, c.shift, random);
  const Operand<Memory> dbias(c.bias, c.n, c.shift, random);
  const Attributes attributes = {{"dtype", static_cast<std::int64_t>(c.weight)},
                                 {"bias_dtype", static_cast<std::int64_t>(c.bias)},
                                 {"axes", std::int64_t{1}}};
  const std::array inputs = {TensorView(x.data(), c.dtype, {c.m, c.k}),
                             TensorView(dy.data(), c.dtype, {c.m, c.n})};
  const std::array outputs = {TensorView(dweight.data(), c.weight, {c.k, c.n}), dbias.view()};
  const std::array types = {TensorType{c.dtype, {c.m, c.k}}, TensorType{c.dtype, {c.m, c.n}}};
  const std::array results = {TensorType{c.weight, {c.k, c.n}}, TensorType{c.bias, {c.n}}};
  run_row<Memory>(cuda::linear_weight_gradient,
                  cuda::weight_gradient_workspace({types, results, attributes}), attributes, inputs,
                  outputs, stream);
  for (std::int64_t j = 0; j < c.n; ++j) {
    Sum bias;
    for (std::int64_t i = 0; i < c.m; ++i) bias.add(element(dy.view(), i * c.n + j));
    expect_near(outputs[1], j, bias, error_of(c.bias, c.m, 1));
    for (std::int64_t l = 0; l < c.k; ++l) {
      Sum weight;
      for (std::int64_t i = 0; i < c.m; ++i)
        weight.add(element(x.view(), i * c.k + l) * element(dy.view(), i * c.n + j));
      expect_near(outputs[0], l * c.n + j, weight, error_of(c.weight, c.m, 1));
    }
  }
}

/// The slope of gelu in its tanh approximation.
inline double slope_of_gelu(double x) {
  const double root = std::sqrt(2 / std::numbers::pi);
  const double gate = 1 / (1 + std::exp(-2 * root * (x + 0.044715 * x * x * x)));
  return gate + 2 * x * gate * (1 - gate) * root * (1 + 3 * 0.044715 * x * x);
}

/// Of dy (m, k), weight (n, k) and h (m, n).
template <class Memory>
void check_gelu_backward(const GradientCase& c, std::mt19937_64& random, StreamRef stream = {}) {
  const Operand<Memory> dy(c.dtype, c.m * c.k, c.shift, random);
  const Operand<Memory> weight(c.dtype, c.n * c.k, c.shift, random);
  const Operand<Memory> h(c.dtype, c.m * c.n, c.shift, random);
  const Operand<Memory> dh(c.dtype, c.m * c.n, c.shift, random);
  const Operand<Memory> db(c.bias, c.n, c.shift, random);
  const Attributes attributes = {{"dtype", static_cast<std::int64_t>(c.bias)}};
  const std::array inputs = {TensorView(dy.data(), c.dtype, {c.m, c.k}),
                             TensorView(weight.data(), c.dtype, {c.n, c.k}),
                             TensorView(h.data(), c.dtype, {c.m, c.n})};
  const std::array outputs = {TensorView(dh.data(), c.dtype, {c.m, c.n}), db.view()};
  std::array<TensorType, 3> types;
  for (std::size_t i = 0; i < types.size(); ++i) types[i] = {inputs[i].dtype, inputs[i].shape};
  const std::array results = {types[2], TensorType{c.bias, {c.n}}};
  run_row<Memory>(cuda::linear_gelu_backward,
                  cuda::gelu_backward_workspace({types, results, attributes}), attributes, inputs,
                  outputs, stream);
  for (std::int64_t j = 0; j < c.n; ++j) {
    Sum bias;
    for (std::int64_t i = 0; i < c.m; ++i) {
      Sum product;
      for (std::int64_t l = 0; l < c.k; ++l)
        product.add(element(dy.view(), i * c.k + l) * element(weight.view(), j * c.k + l));
      const double slope = slope_of_gelu(element(h.view(), i * c.n + j));
      const Sum value{slope * product.value, 2 * product.magnitude};
      expect_near(outputs[0], i * c.n + j, value, error_of(c.dtype, c.k, 2));
      bias.value += value.value;
      bias.magnitude += value.magnitude;
    }
    expect_near(outputs[1], j, bias, error_of(c.dtype, c.m + c.k, 3));
  }
}

}  // namespace ashlar::test
