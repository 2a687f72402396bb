// The update rules behind make_optimizer. @throws InvalidArgument naming the setting that is out of
// range.
#pragma once

#include <memory>

#include "ashlar/optimizer.hpp"

namespace ashlar::detail {

std::unique_ptr<Optimizer> make_rule(const AdamW& config);
std::unique_ptr<Optimizer> make_rule(const Sgd& config);

/// The rule with one more state, "ema": the weights' exponential moving average, e = decay e + (1 -
/// decay) p after each step, from the weights before the first. Decay 0: the rule itself.
std::unique_ptr<Optimizer> averaged(std::unique_ptr<Optimizer> rule, double decay);

/// @throws InvalidArgument "<setting> is <value>: it must be <range>" unless `holds`.
void check_setting(bool holds, const char* setting, double value, const char* range);

}  // namespace ashlar::detail
