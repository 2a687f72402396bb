// The SGD formulas of one element. The formulas themselves stand in sgd.inc.
#pragma once

namespace ashlar {

/// The factors of one step, for Real = float or a vector of floats.
template <typename Real>
struct SgdFactors {
  Real gradient_scale;
  Real learning_rate;
  Real momentum;
  Real decay;  // 0 where a segment does not decay
};

namespace scalar {
#include "base/math/sgd.inc"
}  // namespace scalar

}  // namespace ashlar
