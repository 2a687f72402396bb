// The arithmetic of the element formulas for one float; the SIMD and CUDA versions say the same.
#pragma once

#include <cmath>

namespace ashlar {

struct ScalarMath {
  float fma(float a, float b, float c) const { return std::fma(a, b, c); }
  float fnma(float a, float b, float c) const { return std::fma(-a, b, c); }
  float sqrt(float a) const { return std::sqrt(a); }
};

}  // namespace ashlar
