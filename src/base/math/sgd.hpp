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

/// The factors of a step of a rule with momentum and weight_decay.
template <typename Rule>
constexpr SgdFactors<float> sgd_factors(const Rule& rule, double learning_rate,
                                        double gradient_scale, bool decay) {
  return {.gradient_scale = static_cast<float>(gradient_scale),
          .learning_rate = static_cast<float>(learning_rate),
          .momentum = static_cast<float>(rule.momentum),
          .decay = decay ? static_cast<float>(rule.weight_decay) : 0};
}

namespace scalar {
#include "base/math/sgd.inc"
}  // namespace scalar

}  // namespace ashlar
