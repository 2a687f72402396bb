// The optimizer step as an op: hyper-parameters are attributes, the rule itself is built once per
// node.
#include <array>
#include <utility>

#include "ashlar/error.hpp"
#include "sharding/collective_ops.hpp"
#include "sharding/flat_update.hpp"

namespace ashlar {

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

namespace {

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

/// What a task needs of the node: the views and the rule.
struct UpdateTask {
  const Optimizer& rule;
  const KernelArguments& k;
  StepScalars scalars;
  std::size_t states;

  void run(std::int64_t begin, std::int64_t end, bool decay) const {
    const auto part = [&](const TensorView& view) { return view.flat_slice(begin, end - begin); };
    std::array<TensorView, 4> state;
    for (std::size_t s = 0; s < states; ++s) state[s] = part(k.outputs[1 + s]);
    const bool narrow = k.outputs.size() > 1 + states;
    const Segment segment{0, end - begin, decay};
    rule.step(part(k.outputs[0]), narrow ? part(k.outputs[1 + states]) : TensorView{},
              part(k.inputs[0]), {state.data(), states}, {&segment, 1}, scalars);
  }
};

void run_update(const KernelArguments& k) {
  const auto& rule = *static_cast<const Optimizer*>(k.plan);
  const double factor = k.inputs[1].data == nullptr ? 1.0 : *k.inputs[1].as<double>();
  const UpdateTask task{
      rule, k, {k.context.learning_rate, k.context.step, factor}, rule.states().size()};
  const std::int64_t n = k.inputs[0].elements();
  const std::int64_t origin =
      k.attributes.integer("sharded") != 0 ? k.context.communicator->rank() * n : 0;
  const auto& segments = k.attributes.list("segments");  // begin, end, decay
  for_each_part(
      *k.context.pool, origin, origin + n, segments.size() / 3,
      [&](std::size_t s) { return std::pair(segments[3 * s], segments[3 * s + 1]); },
      [&](std::size_t s, std::int64_t begin, std::int64_t end) {
        task.run(begin - origin, end - origin, segments[3 * s + 2] != 0);
      });
}

const OpDef kUpdate{
    .name = "update",
    .shape = [](std::span<const TensorType> in,
                const Attributes&) { return std::vector<TensorType>(in.begin() + 2, in.end()); },
    .not_differentiable = "it changes state in place, after differentiation",
    .must_reuse =
        [](std::size_t inputs) {
          std::vector<std::pair<int, int>> pairs;
          for (int i = 2; i < static_cast<int>(inputs); ++i) pairs.emplace_back(i - 2, i);
          return pairs;
        },
    .recompute = false,
    .prepare = [](const OpShapes& shapes, const Backend&) -> std::shared_ptr<const void> {
      return std::shared_ptr<const Optimizer>(make_optimizer(rule_of(shapes.attributes)));
    },
    .run = run_update};

}  // namespace

std::vector<Value> update(Tracer& tracer, const OptimizerConfig& rule,
                          const UpdateOperands& operands, std::vector<std::int64_t> segments,
                          bool sharded) {
  std::vector<Value> inputs{operands.gradient, operands.factor, operands.master};
  inputs.insert(inputs.end(), operands.states.begin(), operands.states.end());
  if (operands.parameter) inputs.push_back(operands.parameter);
  Attributes attributes = attributes_of(rule);
  attributes.set("segments", std::move(segments));
  attributes.set("sharded", std::int64_t{sharded});
  attributes.set(kAmong, static_cast<std::int64_t>(Among::shards));
  return tracer.apply(kUpdate, inputs, std::move(attributes));
}

}  // namespace ashlar
