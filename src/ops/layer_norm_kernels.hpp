// Kernels of layer norm, rows of the last axis.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void layer_norm(const KernelArguments& arguments);      // x, weight, bias -> y, mean, rstd
void add_layer_norm(const KernelArguments& arguments);  // x, residual, w, b -> sum, y, mean, rstd
void layer_norm_backward(const KernelArguments& arguments);  // x, w, mean, rstd, dy, dsum -> dx
inline constexpr std::int64_t kRowsPerPartial = 128;
/// x, mean, rstd, dy -> dweight, dbias; partial sums of blocks of kRowsPerPartial rows in the
/// workspace.
void layer_norm_parameters(const KernelArguments& arguments);
std::int64_t layer_norm_parameters_workspace(const TensorType& x);

}  // namespace ashlar::kernels
