// AdamW over flat spans in one pass over memory; compiled for each SIMD target, chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optimizers/adamw.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first: it includes this file once per target.
#include <array>
#include <cmath>

#include "base/math/adamw.hpp"
#include "base/math/scalar_math.hpp"
#include "optimizers/rules.hpp"
#include "optimizers/simd-inl.hpp"
#include "optimizers/update.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

#include "base/math/adamw.inc"

AdamWFactors<Register> broadcast(const AdamWFactors<float>& f) {
  return {set(f.gradient_scale), set(f.beta1),     set(f.rest1),   set(f.beta2),  set(f.rest2),
          set(f.decay),          set(f.step_size), set(f.unbias2), set(f.epsilon)};
}

template <typename Gradient, typename... Parameter>
HWY_NOINLINE void update(const detail::Run& run, const AdamWFactors<float>& factors,
                         const Gradient* gradient, Parameter*... parameter) {
  const AdamWFactors<Register> f = broadcast(factors);
  const auto body = [&f](float* master, float* m, float* v, const Gradient* g,
                         Parameter*... rounded) HWY_ATTR {
    Register p = load(master);
    Register first = load(m);
    Register second = load(v);
    adamw_element(p, first, second, load(g), f, VectorMath());
    store(p, master);
    store(first, m);
    store(second, v);
    (store(p, rounded), ...);
  };
  for_each_register(run.count, body, run.master, run.first_state, run.second_state, gradient,
                    parameter...);
}

void adamw_update(const detail::Run& run, const AdamWFactors<float>& factors) {
  with_type(run.gradient_dtype, run.gradient, [&](const auto* gradient) {
    if (run.parameter == nullptr)
      update(run, factors, gradient);
    else if (run.parameter_dtype == DType::bf16)
      update(run, factors, gradient, static_cast<bf16*>(run.parameter));
    else
      update(run, factors, gradient, static_cast<f16*>(run.parameter));
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
namespace {

HWY_EXPORT(adamw_update);

class AdamWRule final : public Optimizer {
 public:
  explicit AdamWRule(const AdamW& config) : config_(config) {}

  std::string_view name() const override { return "AdamW"; }
  std::span<const std::string_view> states() const override { return kStates; }
  void step(TensorView master, TensorView parameter, TensorView gradient,
            std::span<const TensorView> state, std::span<const Segment> segments,
            const StepScalars& scalars) const override {
    const detail::Run all = detail::check_step(name(), master, parameter, gradient, state,
                                               kStates.size(), segments, scalars);
    detail::for_each_group(all, segments, [&](const detail::Run& run, bool decay) {
      HWY_DYNAMIC_DISPATCH(adamw_update)
      (run, adamw_factors(config_, scalars.learning_rate, scalars.step, scalars.gradient_scale,
                          decay, ScalarMath()));
    });
  }

 private:
  static constexpr std::array<std::string_view, 2> kStates{"m", "v"};

  AdamW config_;
};

}  // namespace

std::unique_ptr<Optimizer> detail::make_rule(const AdamW& config) {
  check_setting(config.beta1 >= 0 && config.beta1 < 1, "beta1", config.beta1, "in [0, 1)");
  check_setting(config.beta2 >= 0 && config.beta2 < 1, "beta2", config.beta2, "in [0, 1)");
  check_setting(config.epsilon > 0 && std::isfinite(config.epsilon), "epsilon", config.epsilon,
                "positive");
  check_setting(config.weight_decay >= 0 && std::isfinite(config.weight_decay), "weight decay",
                config.weight_decay, "0 or more");
  check_setting(std::isfinite(config.lr), "learning rate", config.lr, "finite");
  return std::make_unique<AdamWRule>(config);
}

}  // namespace ashlar
#endif
