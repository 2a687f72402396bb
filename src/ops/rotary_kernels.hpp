// Kernel of rotary position embedding.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void rotary(const KernelArguments& arguments);  // x, positions (may be absent) -> y

}  // namespace ashlar::kernels
