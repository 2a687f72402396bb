// Kernels of silu and swiglu; all operands are contiguous.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void silu(const KernelArguments& arguments);             // x -> y
void silu_backward(const KernelArguments& arguments);    // x, dy -> dx
void swiglu(const KernelArguments& arguments);           // gate, up -> y
void swiglu_backward(const KernelArguments& arguments);  // gate, up, dy -> dgate, dup

}  // namespace ashlar::kernels
