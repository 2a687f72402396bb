// SGD with (Nesterov) momentum over flat spans; compiled for each SIMD target, chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optimizers/sgd.cpp"
#include <hwy/foreach_target.h>
// foreach_target comes first: it includes this file once per target.
#include <array>
#include <cmath>

#include "base/math/sgd.hpp"
#include "optimizers/rules.hpp"
#include "optimizers/simd-inl.hpp"
#include "optimizers/update.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

#include "base/math/sgd.inc"

SgdFactors<Register> broadcast(const SgdFactors<float>& f) {
  return {set(f.gradient_scale), set(f.learning_rate), set(f.momentum), set(f.decay)};
}

template <typename Gradient, typename... Parameter>
HWY_NOINLINE void plain(const detail::Run& run, const SgdFactors<float>& factors,
                        const Gradient* gradient, Parameter*... parameter) {
  const SgdFactors<Register> f = broadcast(factors);
  const auto body = [&f](float* master, const Gradient* g, Parameter*... rounded) HWY_ATTR {
    Register p = load(master);
    sgd_element(p, load(g), f, VectorMath());
    store(p, master);
    (store(p, rounded), ...);
  };
  for_each_register(run.count, body, run.master, gradient, parameter...);
}

template <bool nesterov, typename Gradient, typename... Parameter>
HWY_NOINLINE void momentum(const detail::Run& run, const SgdFactors<float>& factors,
                           const Gradient* gradient, Parameter*... parameter) {
  const SgdFactors<Register> f = broadcast(factors);
  const auto body = [&f](float* master, float* velocity, const Gradient* g, Parameter*... rounded)
                        HWY_ATTR {
                          Register p = load(master);
                          Register u = load(velocity);
                          sgd_momentum_element<nesterov>(p, u, load(g), f, VectorMath());
                          store(p, master);
                          store(u, velocity);
                          (store(p, rounded), ...);
                        };
  for_each_register(run.count, body, run.master, run.first_state, gradient, parameter...);
}

template <typename Gradient, typename... Parameter>
void update(const detail::Run& run, const SgdFactors<float>& factors, bool nesterov,
            const Gradient* gradient, Parameter*... parameter) {
  if (run.first_state == nullptr)
    plain(run, factors, gradient, parameter...);
  else if (nesterov)
    momentum<true>(run, factors, gradient, parameter...);
  else
    momentum<false>(run, factors, gradient, parameter...);
}

void sgd_update(const detail::Run& run, const SgdFactors<float>& factors, bool nesterov) {
  with_type(run.gradient_dtype, run.gradient, [&](const auto* gradient) {
    if (run.parameter == nullptr)
      update(run, factors, nesterov, gradient);
    else if (run.parameter_dtype == DType::bf16)
      update(run, factors, nesterov, gradient, static_cast<bf16*>(run.parameter));
    else
      update(run, factors, nesterov, gradient, static_cast<f16*>(run.parameter));
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
namespace {

HWY_EXPORT(sgd_update);

class SgdRule final : public Optimizer {
 public:
  explicit SgdRule(const Sgd& config) : config_(config) {}

  std::string_view name() const override { return "SGD"; }
  std::span<const std::string_view> states() const override {
    return std::span(kStates).first(config_.momentum == 0 ? 0 : 1);
  }
  void step(TensorView master, TensorView parameter, TensorView gradient,
            std::span<const TensorView> state, std::span<const Segment> segments,
            const StepScalars& scalars) const override {
    const detail::Run all = detail::check_step(name(), master, parameter, gradient, state,
                                               states().size(), segments, scalars);
    detail::for_each_group(all, segments, [&](const detail::Run& run, bool decay) {
      HWY_DYNAMIC_DISPATCH(sgd_update)
      (run, sgd_factors(config_, scalars.learning_rate, scalars.gradient_scale, decay),
       config_.nesterov);
    });
  }

 private:
  static constexpr std::array<std::string_view, 1> kStates{"momentum"};

  Sgd config_;
};

}  // namespace

std::unique_ptr<Optimizer> detail::make_rule(const Sgd& config) {
  check_setting(config.momentum >= 0 && config.momentum < 1, "momentum", config.momentum,
                "in [0, 1)");
  check_setting(!config.nesterov || config.momentum > 0, "momentum", config.momentum,
                "positive with nesterov");
  check_setting(config.weight_decay >= 0 && std::isfinite(config.weight_decay), "weight decay",
                config.weight_decay, "0 or more");
  check_setting(std::isfinite(config.lr), "learning rate", config.lr, "finite");
  return std::make_unique<SgdRule>(config);
}

}  // namespace ashlar
#endif
