// Kernels that move elements of any type.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void copy(const KernelArguments& arguments);      // strided input
void pad(const KernelArguments& arguments);       // strided input, zeros around it
void constant(const KernelArguments& arguments);  // attribute "value"

}  // namespace ashlar::kernels
