// Activations of one element and their slopes.
#pragma once

#include <cmath>

#include "cuda/device.h"

namespace ashlar::cuda {

/// 1 / (1 + e^-x); overflow of the exponential gives 0.
__device__ inline float logistic(float x) { return 1.0F / (1.0F + std::exp(-x)); }

inline constexpr float kGeluLinear = 1.5957691216057307118F;  // 2 sqrt(2/pi)
inline constexpr float kGeluCubic = 0.0713548162726002527F;   // kGeluLinear x 0.044715

/// gelu, tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415, section 2), with the logistic
/// function: 0.5 (1 + tanh u) = logistic(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
__device__ inline float gelu_gate(float x) {
  return logistic(x * std::fma(kGeluCubic * x, x, kGeluLinear));
}
__device__ inline float gelu_of(float x) { return x * gelu_gate(x); }

/// d gelu / dx = s + x s (1 - s) d(2u)/dx. Far out, where x^2 overflows, the second term is 0.
__device__ inline float gelu_slope(float x) {
  const float s = gelu_gate(x), flank = std::fma(-s, s, s);
  if (flank == 0) return s;
  return std::fma(x * flank, std::fma(3 * kGeluCubic * x, x, kGeluLinear), s);
}

/// x logistic(x), and its slope s (1 + x (1 - s)).
__device__ inline float silu_of(float x) { return x * logistic(x); }
__device__ inline float silu_slope(float x) {
  const float s = logistic(x);
  return std::fma(x * s, 1 - s, s);
}

}  // namespace ashlar::cuda
