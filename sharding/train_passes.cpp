// The passes that TrainStep calls before it shards: trace, differentiate, rematerialize.
#include <fmt/format.h>

#include "ashlar/autodiff.hpp"
#include "ashlar/error.hpp"
#include "graph/recompute_search.hpp"
#include "graph/reorder.hpp"
#include "ops/product/linear_cross_entropy.hpp"
#include "sharding/collective_ops.hpp"
#include "sharding/layer_order.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {
namespace {

void output_gradient(Tracer& tracer, Value parameter, Value gradient) {
  tracer.output(gradient_name(tracer.graph()[parameter.id()].name), gradient);
}

}  // namespace

Graph trace_training(const LossModel& model, const ShardOptions& options) {
  Tracer tracer;
  const Value loss = model(tracer);
  tracer.output(std::string(kLoss), loss);
  std::vector<Value> trainable;
  for (const ValueId id : tracer.graph().inputs) {
    const ValueInfo& value = tracer.graph()[id];
    if (value.input == InputKind::parameter &&
        tracer.graph().parameters[static_cast<std::size_t>(value.parameter)].trainable) {
      trainable.emplace_back(&tracer, id);
    }
  }
  const Value cotangent = tracer.input(std::string(kLossCotangent), loss.dtype(), loss.shape());
  const std::vector<DType> dtypes(trainable.size(), local_gradient_dtype(options));
  if (sums_locally(options)) {
    const auto uses = vjp_by_use(tracer, {&loss, 1}, {&cotangent, 1}, trainable, dtypes);
    for (std::size_t i = 0; i < trainable.size(); ++i) {
      for (const Value& use : uses[i]) output_gradient(tracer, trainable[i], use);
    }
  } else {
    const auto gradients = vjp(tracer, {&loss, 1}, {&cotangent, 1}, trainable, dtypes);
    for (std::size_t i = 0; i < trainable.size(); ++i) {
      if (gradients[i]) output_gradient(tracer, trainable[i], gradients[i]);
    }
  }
  return fuse_cross_entropy(std::move(tracer.graph()));
}

Graph recompute(const Graph& joint, Recompute how) {
  switch (how) {
    case Recompute::none:
    case Recompute::budget:
      break;
    case Recompute::automatic:
    case Recompute::cheap:
      return rematerialize(joint, cheap_to_remake(joint));
    case Recompute::selective:
      return rematerialize(joint, attention_remade(joint));
    case Recompute::per_unit:
      return rematerialize(joint, units_remade(joint));
  }
  return joint;
}

std::string relief(int stage, Recompute how) {
  const bool keeps =
      how == Recompute::none || how == Recompute::cheap || how == Recompute::selective;
  return fmt::format("use {}{}{}or smaller batches", stage > 0 ? "more ranks, " : "",
                     stage < 3 ? "a higher stage, " : "",
                     keeps ? "more recomputation (or a memory budget), " : "");
}

int shards_of(const ZeroConfig& zero, int ranks) {
  if (zero.group == 0) return ranks;
  if (zero.group > 0 && ranks % zero.group == 0) return zero.group;
  throw InvalidArgument(fmt::format(
      "a sharding group of {}: must divide the {} ranks (0: all of them)", zero.group, ranks));
}

ShardOptions shard_options(const TrainConfig& config, int ranks) {
  ShardOptions options{config.zero, config.precision, config.optimizer, config.micro_batches,
                       true,        config.clip};
  options.layer_order = config.order == MicroBatchOrder::layers;
  if (options.layer_order && config.reduce == ReduceWhen::each) {
    throw InvalidArgument(
        "the order 'layers' reduces once, after the last micro-batch; reduce 'each' goes with the "
        "order 'micro_batches'");
  }
  options.reduce_each = config.reduce == ReduceWhen::each ||
                        (config.reduce == ReduceWhen::automatic && config.zero.stage >= 2);
  options.reduce_each = options.reduce_each && !options.layer_order;
  options.replicas = ranks / shards_of(config.zero, ranks);
  return options;
}

Graph shard_step(const Graph& joint, const FlatLayout& layout, const ShardOptions& options,
                 const Backend& backend) {
  Graph ordered = reorder(joint, backend);
  if (options.layer_order) ordered = in_layer_order(ordered, options.micro_batches);
  ShardOptions of_backend = options;
  of_backend.join_updates = updates_together(backend);
  return shard(ordered, layout, of_backend);
}

Graph recompute_within(const Graph& joint, std::int64_t budget, const FlatLayout& layout,
                       const ShardOptions& options, const ScheduleOptions& order,
                       const Backend& backend) {
  const auto planned_height = [&](const Graph& graph) -> PlannedHeight {
    StateLayout states;
    const Graph sharded = shard_step(graph, layout, options, backend);
    return {planned_peak(compile(sharded, order, backend, states), states).total,
            std::ssize(sharded.nodes)};
  };
  const auto choices = recompute_choices(joint, backend, options.zero.stage == 3, planned_height);
  for (const RecomputeChoice& choice : choices) {
    if (choice.height <= budget) return rematerialize(joint, choice.remade);
  }
  throw InvalidArgument(fmt::format(
      "a memory budget of {} ({} bytes) cannot be met: with recomputation the step needs at least "
      "{} ({} bytes) per rank; give more, {}",
      format_bytes(budget), budget, format_bytes(choices.back().height), choices.back().height,
      relief(options.zero.stage, Recompute::budget)));
}

}  // namespace ashlar
