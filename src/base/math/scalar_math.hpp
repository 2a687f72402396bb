// The arithmetic of the element formulas for one float; the SIMD and CUDA versions say the same.
#pragma once

#include <cmath>

namespace ashlar {

struct ScalarMath {
  float fma(float a, float b, float c) const { return std::fma(a, b, c); }
  float fnma(float a, float b, float c) const { return std::fma(-a, b, c); }
  float sqrt(float a) const { return std::sqrt(a); }
  double sqrt(double a) const { return std::sqrt(a); }
  double pow(double a, double b) const { return std::pow(a, b); }
};

}  // namespace ashlar
