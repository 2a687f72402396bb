// An exponential moving average of the weights, as a rule around another rule.
#include <algorithm>
#include <vector>

#include "ashlar/error.hpp"
#include "optimizers/rules.hpp"

namespace ashlar {
namespace {

class AveragedRule final : public Optimizer {
 public:
  AveragedRule(std::unique_ptr<Optimizer> rule, double decay)
      : rule_(std::move(rule)), decay_(static_cast<float>(decay)) {
    const auto inner = rule_->states();
    states_.assign(inner.begin(), inner.end());
    states_.emplace_back("ema");
  }

  std::string_view name() const override { return rule_->name(); }
  std::span<const std::string_view> states() const override { return states_; }
  void step(TensorView master, TensorView parameter, TensorView gradient,
            std::span<const TensorView> state, std::span<const Segment> segments,
            const StepScalars& scalars) const override {
    if (state.size() != states_.size() || state.back().dtype != DType::f32 ||
        state.back().elements() != master.elements())
      throw InvalidArgument("the average has another length or type than the weights");
    float* const average = state.back().as<float>();
    const float* const weights = master.as<float>();
    const std::int64_t n = master.elements();
    if (scalars.step == 1) std::copy_n(weights, n, average);
    rule_->step(master, parameter, gradient, state.first(state.size() - 1), segments, scalars);
    const float rest = 1 - decay_;
    for (std::int64_t i = 0; i < n; ++i) average[i] = decay_ * average[i] + rest * weights[i];
  }

 private:
  std::unique_ptr<Optimizer> rule_;
  float decay_;
  std::vector<std::string_view> states_;
};

}  // namespace

std::unique_ptr<Optimizer> detail::averaged(std::unique_ptr<Optimizer> rule, double decay) {
  check_setting(decay >= 0 && decay < 1, "ema", decay, "in [0, 1)");
  if (decay == 0) return rule;
  return std::make_unique<AveragedRule>(std::move(rule), decay);
}

}  // namespace ashlar
