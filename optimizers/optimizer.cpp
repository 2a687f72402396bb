// make_optimizer and learning-rate schedules.
#include "ashlar/optimizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ashlar/error.hpp"
#include "optimizers/rules.hpp"

namespace ashlar {

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config) {
  return std::visit(
      [](const auto& rule) { return detail::averaged(detail::make_rule(rule), rule.ema); }, config);
}

std::vector<std::string> states_of(const OptimizerConfig& config) {
  const auto rule = make_optimizer(config);
  return {rule->states().begin(), rule->states().end()};
}

double Schedule::rate(std::int64_t step) const {
  if (step <= warmup) return lr * static_cast<double>(step) / static_cast<double>(warmup);
  if (kind == Kind::constant) return lr;
  const std::int64_t decaying = std::max<std::int64_t>(steps - warmup, 1);
  const double progress =
      std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(decaying));
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return lr * (floor + (1 - floor) * cosine);
}

void detail::check_setting(bool holds, const char* setting, double value, const char* range) {
  if (!holds) throw InvalidArgument(fmt::format("{} is {}: it must be {}", setting, value, range));
}

}  // namespace ashlar
