// The optimizer step as an op: hyper-parameters are attributes, the rule itself is built once per
// node.
#include <array>
#include <span>
#include <utility>

#include "ashlar/error.hpp"
#include "sharding/collective_ops.hpp"
#include "sharding/flat_update.hpp"

namespace ashlar {
namespace {

Attributes attributes_of(const OptimizerConfig& rule) {
  if (const auto* adamw = std::get_if<AdamW>(&rule)) {
    return {{"beta1", adamw->beta1},
            {"beta2", adamw->beta2},
            {"epsilon", adamw->epsilon},
            {"weight_decay", adamw->weight_decay},
            {"ema", adamw->ema}};
  }
  const Sgd& sgd = std::get<Sgd>(rule);
  return {{"momentum", sgd.momentum},
          {"weight_decay", sgd.weight_decay},
          {"nesterov", std::int64_t{sgd.nesterov}},
          {"ema", sgd.ema}};
}

OptimizerConfig rule_of(const Attributes& a) {
  if (a.has("beta1")) {
    return AdamW{0,
                 a.number("beta1"),
                 a.number("beta2"),
                 a.number("epsilon"),
                 a.number("weight_decay"),
                 a.number("ema")};
  }
  return Sgd{0, a.number("momentum"), a.number("weight_decay"), a.integer("nesterov") != 0,
             a.number("ema")};
}

std::size_t flats_of(const Attributes& a) { return static_cast<std::size_t>(a.integer("flats")); }

/// What a task needs of the node: the rule and a flat's views.
struct UpdateTask {
  const Optimizer& rule;
  StepScalars scalars;
  const TensorView& gradient;
  std::span<const TensorView> outputs;

  void run(std::int64_t begin, std::int64_t end, bool decay) const {
    const auto part = [&](const TensorView& view) { return view.flat_slice(begin, end - begin); };
    const std::size_t states = rule.states().size();
    std::array<TensorView, 4> state;
    for (std::size_t s = 0; s < states; ++s) state[s] = part(outputs[1 + s]);
    const bool narrow = outputs.size() > 1 + states;
    const Segment segment{0, end - begin, decay};
    rule.step(part(outputs[0]), narrow ? part(outputs[1 + states]) : TensorView{}, part(gradient),
              {state.data(), states}, {&segment, 1}, scalars);
  }
};

void run_update(const KernelArguments& k) {
  const std::size_t flats = flats_of(k.attributes), each = k.outputs.size() / flats;
  const TensorView& factor = k.inputs[flats];
  const StepScalars scalars{k.context.learning_rate, k.context.step,
                            factor.data == nullptr ? 1.0 : *factor.as<double>()};
  const bool sharded = k.attributes.integer("sharded") != 0;
  const auto& segments = k.attributes.list("segments");  // begin, end, decay
  std::int64_t whole = 0;                                // the flat's begin, of all end to end
  for (std::size_t f = 0; f < flats; ++f) {
    const UpdateTask task{*static_cast<const Optimizer*>(k.plan), scalars, k.inputs[f],
                          k.outputs.subspan(f * each, each)};
    const std::int64_t n = k.inputs[f].elements();
    const std::int64_t origin = whole + (sharded ? k.context.communicator->rank() * n : 0);
    for_each_part(
        *k.context.pool, origin, origin + n, segments.size() / 3,
        [&](std::size_t s) { return std::pair(segments[3 * s], segments[3 * s + 1]); },
        [&](std::size_t s, std::int64_t begin, std::int64_t end) {
          task.run(begin - origin, end - origin, segments[3 * s + 2] != 0);
        });
    whole += sharded ? k.context.communicator->size() * n : n;
  }
}

/// Gradients, a factor, and what is updated in place.
const OpDef kUpdate{
    .name = "update",
    .shape =
        [](std::span<const TensorType> in, const Attributes& a) {
          return std::vector<TensorType>(in.begin() + 1 + a.integer("flats"), in.end());
        },
    .not_differentiable = "it changes state in place, after differentiation",
    .must_reuse =
        [](std::size_t inputs, const Attributes& a) {
          const int first = 1 + static_cast<int>(a.integer("flats"));
          std::vector<std::pair<int, int>> pairs;
          for (int i = first; i < static_cast<int>(inputs); ++i) pairs.emplace_back(i - first, i);
          return pairs;
        },
    .recompute = false,
    .prepare = [](const OpShapes& shapes, const Backend&) -> std::shared_ptr<const void> {
      return std::shared_ptr<const Optimizer>(make_optimizer(rule_of(shapes.attributes)));
    },
    .run = run_update};

}  // namespace

Attributes update_attributes(const OptimizerConfig& rule, std::size_t flats,
                             std::vector<std::int64_t> segments, bool sharded) {
  Attributes attributes = attributes_of(rule);
  attributes.set("flats", static_cast<std::int64_t>(flats));
  attributes.set("segments", std::move(segments));
  attributes.set("sharded", std::int64_t{sharded});
  return attributes;
}

std::vector<Value> update(Tracer& tracer, const OptimizerConfig& rule,
                          std::span<const UpdateOperands> flats, Value factor,
                          std::vector<std::int64_t> segments, bool sharded) {
  std::vector<Value> inputs;
  for (const UpdateOperands& flat : flats) inputs.push_back(flat.gradient);
  inputs.push_back(factor);
  for (const UpdateOperands& flat : flats) {
    inputs.push_back(flat.master);
    inputs.insert(inputs.end(), flat.states.begin(), flat.states.end());
    if (flat.parameter) inputs.push_back(flat.parameter);
  }
  Attributes attributes = update_attributes(rule, flats.size(), std::move(segments), sharded);
  attributes.set(kAmong, static_cast<std::int64_t>(Among::shards));
  return tracer.apply(kUpdate, inputs, std::move(attributes));
}

bool updates_together(const Backend& backend) {
  return backend.find_kernel != nullptr && backend.find_kernel(kUpdate.name) != nullptr;
}

}  // namespace ashlar
