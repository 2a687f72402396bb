// The arithmetic of the element formulas in a kernel: base/math/scalar_math.hpp, callable on both
// sides. nvcc drops a constexpr function's calls of functions that are the host's alone, without a
// word.
#pragma once

#include <cmath>

#include "cuda/device.h"

namespace ashlar::cuda {

struct DeviceMath {
  __host__ __device__ float fma(float a, float b, float c) const { return std::fma(a, b, c); }
  __host__ __device__ float fnma(float a, float b, float c) const { return std::fma(-a, b, c); }
  __host__ __device__ float sqrt(float a) const { return std::sqrt(a); }
  __host__ __device__ double sqrt(double a) const { return std::sqrt(a); }
  __host__ __device__ double pow(double a, double b) const { return std::pow(a, b); }
};

}  // namespace ashlar::cuda
