// The AdamW formula of one element. The formula itself stands in adamw.inc.
#pragma once

#include <cstdint>

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

/// The factors of step t of a rule with beta1, beta2, epsilon and weight_decay. `math` has pow and
/// sqrt of doubles.
template <typename Rule, typename Math>
constexpr AdamWFactors<float> adamw_factors(const Rule& rule, double learning_rate, std::int64_t t,
                                            double gradient_scale, bool decay, const Math& math) {
  const auto narrow = [](double x) { return static_cast<float>(x); };
  const auto steps = static_cast<double>(t);
  return {.gradient_scale = narrow(gradient_scale),
          .beta1 = narrow(rule.beta1),
          .rest1 = narrow(1 - rule.beta1),
          .beta2 = narrow(rule.beta2),
          .rest2 = narrow(1 - rule.beta2),
          .decay = decay ? narrow(learning_rate * rule.weight_decay) : 0,
          .step_size = narrow(learning_rate / (1 - math.pow(rule.beta1, steps))),
          .unbias2 = narrow(1 / math.sqrt(1 - math.pow(rule.beta2, steps))),
          .epsilon = narrow(rule.epsilon)};
}

namespace scalar {
#include "base/math/adamw.inc"
}  // namespace scalar

}  // namespace ashlar
