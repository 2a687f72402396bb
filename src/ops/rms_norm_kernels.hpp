// Kernels of rms norm, rows of the last axis.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void rms_norm(const KernelArguments& arguments);           // x, weight -> y, rstd
void rms_norm_backward(const KernelArguments& arguments);  // x, weight, rstd, dy -> dx
inline constexpr std::int64_t kRmsRowsPerPartial = 128;
/// x, rstd, dy -> dweight; partial sums of blocks of kRmsRowsPerPartial rows in the workspace.
void rms_norm_weight(const KernelArguments& arguments);
std::int64_t rms_norm_weight_workspace(const TensorType& x);

}  // namespace ashlar::kernels
