// The AdamW formula of one element. The formula itself stands in adamw.inc.
#pragma once

namespace ashlar {

/// The factors of one step, for Real = float or a vector of floats.
template <typename Real>
struct AdamWFactors {
  Real gradient_scale;
  Real beta1;
  Real rest1;  // 1 - beta1
  Real beta2;
  Real rest2;      // 1 - beta2
  Real decay;      // learning rate x weight decay; 0 where a segment does not decay
  Real step_size;  // learning rate / (1 - beta1^t)
  Real unbias2;    // 1 / sqrt(1 - beta2^t)
  Real epsilon;
};

namespace scalar {
#include "base/math/adamw.inc"
}  // namespace scalar

}  // namespace ashlar
