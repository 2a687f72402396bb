// Kernels of element-wise rows; all read contiguous or strided inputs and write contiguous outputs.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void add(const KernelArguments& arguments);
void subtract(const KernelArguments& arguments);
void multiply(const KernelArguments& arguments);
void divide(const KernelArguments& arguments);
void gelu_backward(const KernelArguments& arguments);  // (x, dy)
void tanh_backward(const KernelArguments& arguments);  // (y, dy)

void scale(const KernelArguments& arguments);
void exp(const KernelArguments& arguments);
void log(const KernelArguments& arguments);
void tanh(const KernelArguments& arguments);
void gelu(const KernelArguments& arguments);

void cast(const KernelArguments& arguments);

}  // namespace ashlar::kernels
