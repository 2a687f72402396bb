// Our own CUDA kernels. Each takes the inputs, outputs and attributes of the CPU's kernel of the
// same op (src/ops/*_kernels.hpp), with pointers to device memory, and returns once it is enqueued
// on the context's stream. f32 and bf16 are computed, in f32. Results depend on the operands alone:
// no atomics, grids made of shapes and element types. What a kernel finds wrong in device data (a
// token or target out of range) makes the result NaN, as it cannot throw; the loader checks first.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "ashlar/op.hpp"

namespace ashlar::cuda {

/// The CUDA kernel of an op. Outputs 0 may lie over the inputs that the op's row names.
using Kernel = DeviceKernel;

/// All of them, by name in ascending order.
std::span<const Kernel> kernels_of_ops();
/// Null where an op has no kernel of ours; products: find_product of cuda/products.hpp.
const Kernel* find_kernel(std::string_view op);

// Element-wise; broadcast and strided operands where the CPU's kernel takes them.
void add(const KernelArguments& arguments);
void subtract(const KernelArguments& arguments);
void multiply(const KernelArguments& arguments);
void divide(const KernelArguments& arguments);
void scale(const KernelArguments& arguments);
void exp(const KernelArguments& arguments);
void log(const KernelArguments& arguments);
void tanh(const KernelArguments& arguments);
void tanh_backward(const KernelArguments& arguments);
void gelu(const KernelArguments& arguments);
void gelu_backward(const KernelArguments& arguments);
void silu(const KernelArguments& arguments);
void silu_backward(const KernelArguments& arguments);
void swiglu(const KernelArguments& arguments);
void swiglu_backward(const KernelArguments& arguments);
void cast(const KernelArguments& arguments);
void gelu_columns_backward(const KernelArguments& arguments);

// Elements of any type.
void copy(const KernelArguments& arguments);
void pad(const KernelArguments& arguments);
void constant(const KernelArguments& arguments);
void take_integers(const KernelArguments& arguments);
void pack(const KernelArguments& arguments);
void fill_zeros(StreamRef stream, void* to, std::int64_t bytes);

// Rows of the last axis.
void layer_norm(const KernelArguments& arguments);
void add_layer_norm(const KernelArguments& arguments);
void layer_norm_backward(const KernelArguments& arguments);
void layer_norm_parameters(const KernelArguments& arguments);
void rms_norm(const KernelArguments& arguments);
void rms_norm_backward(const KernelArguments& arguments);
void rms_norm_weight(const KernelArguments& arguments);
void softmax(const KernelArguments& arguments);
void softmax_backward(const KernelArguments& arguments);
void cross_entropy(const KernelArguments& arguments);
void cross_entropy_backward(const KernelArguments& arguments);
void target_weights(const KernelArguments& arguments);

// Tables, positions, random numbers, sums.
void embedding(const KernelArguments& arguments);
void embedding_tokens(const KernelArguments& arguments);
void embedding_positions(const KernelArguments& arguments);
void dropout(const KernelArguments& arguments);
void rotary(const KernelArguments& arguments);
void sum(const KernelArguments& arguments);
std::int64_t sum_workspace(const OpShapes& shapes);
/// out = the sum of the squares of x (f32 or bf16), in double: partials of fixed blocks in the
/// workspace, then their sum.
void sum_of_squares(StreamRef stream, const TensorView& x, double* out, std::byte* workspace);
std::int64_t sum_of_squares_workspace(std::int64_t elements);

// Attention by blocks, for heads of up to 128 channels: what runs where cuDNN does not. @throws
// InvalidArgument for larger heads.
void attention(const KernelArguments& arguments);
void attention_backward(const KernelArguments& arguments);
void grouped_attention(const KernelArguments& arguments);
void grouped_attention_backward(const KernelArguments& arguments);
std::int64_t attention_backward_workspace(const OpShapes& shapes);  // of both
void causal_mask(const KernelArguments& arguments);

// Images, channels last.
void conv2d(const KernelArguments& arguments);
void conv2d_input_gradient(const KernelArguments& arguments);
void conv2d_weight_gradient(const KernelArguments& arguments);
std::int64_t conv2d_weight_gradient_workspace(const OpShapes& shapes);
void max_pool2d(const KernelArguments& arguments);
void max_pool2d_pick(const KernelArguments& arguments);
void max_pool2d_spread(const KernelArguments& arguments);
void average_pool2d(const KernelArguments& arguments);
void average_pool2d_spread(const KernelArguments& arguments);

// State.
void update(const KernelArguments& arguments);
void accumulate(const KernelArguments& arguments);
void gradient_norm(const KernelArguments& arguments);

/// A chunk of rows of logits of the language-model head, on the device.
struct HeadRows {
  std::byte* logits = nullptr;
  DType dtype = DType::f32;  // or bf16
  std::int64_t rows = 0;
  std::int64_t columns = 0;               // tokens of the vocabulary
  std::int64_t stride = 0;                // elements from row to row; 0: as many as columns
  const std::int32_t* targets = nullptr;  // one per row; below 0: ignored
};

/// losses[i] = log(sum_j exp(logits[i][j])) - logits[i][target], 0 for an ignored row.
void negative_log_likelihood(const RunContext& context, const HeadRows& rows, double* losses);
/// The same, and logits[i][j] = *scale (softmax(logits[i])[j] - [j == target]), zeros in an ignored
/// row and from `columns` on.
void negative_log_likelihood_gradient(const RunContext& context, const HeadRows& rows,
                                      const double* scale, double* losses);
/// *scale = *dloss (1 where null) / targets that count, 0 when none does.
void target_scale(const RunContext& context, const std::int32_t* targets, std::int64_t rows,
                  const float* dloss, double* scale);
/// *loss = *scale x the sum of losses (rows).
void sum_losses(const RunContext& context, const double* losses, std::int64_t rows,
                const double* scale, float* loss);

}  // namespace ashlar::cuda
