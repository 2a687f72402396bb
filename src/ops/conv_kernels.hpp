// Kernels of two-dimensional convolution, channels last.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void conv2d(const KernelArguments& arguments);  // x, weight, bias (may be absent) -> y
void conv2d_input_gradient(const KernelArguments& arguments);   // dy, weight -> dx
void conv2d_weight_gradient(const KernelArguments& arguments);  // x, dy -> dweight
/// Of the first two: the weight in the order of its use, as wide as sums, and a pixel of zeros.
/// @param channels of what is read and of what is written
std::int64_t conv2d_workspace(const TensorType& weight, std::int64_t read, std::int64_t written);

}  // namespace ashlar::kernels
