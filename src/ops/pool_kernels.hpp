// Kernels of pooling, channels last. Attributes: kernel, stride.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

/// x -> y, and which element of its window each result is, counted row by row.
void max_pool2d(const KernelArguments& arguments);
void max_pool2d_pick(const KernelArguments& arguments);        // x, which -> y
void max_pool2d_spread(const KernelArguments& arguments);      // dy, which -> dx
void average_pool2d(const KernelArguments& arguments);         // x -> y
void average_pool2d_spread(const KernelArguments& arguments);  // dy -> dx

}  // namespace ashlar::kernels
