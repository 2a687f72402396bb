// What a node of the rows of products multiplies, for the kernels of every device.
#pragma once

#include <span>

#include "ops/product/gemm.hpp"
#include "ops/product/head_plan.hpp"

namespace ashlar {

/// `count` products, one behind the other.
struct MatmulBatch {
  Gemm gemm;
  std::int64_t count = 1;
  bool shared_b = false;  // b lacks the leading axes
};

MatmulBatch matmul_batch(std::span<const TensorType> inputs, const Attributes& attributes);
/// Of linear and linear_gelu.
Gemm linear_gemm(std::span<const TensorType> inputs);
/// Of linear_weight_gradient.
Gemm weight_gradient_gemm(std::span<const TensorType> inputs, const Attributes& attributes);
/// Of linear_gelu_backward: before gelu's backward.
Gemm gelu_backward_gemm(std::span<const TensorType> inputs);
/// Of a row that multiplies and passes once over its operands.
Cost product_cost(const OpShapes& shapes, const Gemm& gemm);
/// Of the three rows of the language-model head.
Head head_of(std::span<const TensorType> inputs, const Attributes& attributes);

}  // namespace ashlar
