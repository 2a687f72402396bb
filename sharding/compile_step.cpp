// One training step from model code to bytes, the passes in order; read it top to bottom.
#include "sharding/compile_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "comm/reduction_scratch.hpp"
#include "ops/product/fuse_linear_backward.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {
namespace {

TrainConfig resolved(TrainConfig config) {
  if (config.recompute == Recompute::automatic) {
    config.recompute = config.memory_budget != 0                 ? Recompute::budget
                       : config.order == MicroBatchOrder::layers ? Recompute::per_unit
                                                                 : Recompute::cheap;
  }
  const bool kept = config.recompute == Recompute::budget;
  if (config.memory_budget < 0 || (kept && config.memory_budget == 0))
    throw InvalidArgument(
        fmt::format("a memory budget of {} bytes: must be more than 0", config.memory_budget));
  if (config.memory_budget > 0 && !kept)
    throw InvalidArgument(
        fmt::format("a memory budget of {}: only Recompute::budget (or automatic) keeps to one",
                    format_bytes(config.memory_budget)));
  return config;
}

void require_gradients(const Graph& joint) {
  const std::string prefix = gradient_name("");
  if (std::ranges::any_of(joint.outputs,
                          [&](const auto& output) { return output.first.starts_with(prefix); }))
    return;
  throw InvalidArgument(fmt::format(
      "nothing is trainable: each of the {} parameters is frozen, or the loss does not depend on "
      "it; leave at least one to train",
      joint.parameters.size()));
}

}  // namespace

PerSpace<std::int64_t> CompiledStep::arena_bytes() const {
  PerSpace<std::int64_t> bytes{};
  for (std::size_t s = 0; s < kSpaces; ++s) {
    for (const Program& program : programs) bytes[s] = std::max(bytes[s], program.heights[s]);
    if (s < 2) bytes[s] = states.bytes(static_cast<Space>(s));
  }
  return bytes;
}

MemoryUse CompiledStep::planned() const {
  PeakBytes peak = planned_peak(programs[0], states);
  const PerSpace<std::int64_t> bytes = arena_bytes();
  const std::int64_t total = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
  constexpr auto kWorkspace = static_cast<std::size_t>(Category::workspace);
  peak.peak[kWorkspace] += communicator_bytes;
  peak.at_peak[kWorkspace] += communicator_bytes;
  return {peak.peak, peak.at_peak, peak.fragmentation + total - peak.total, peak.padding,
          total + communicator_bytes};
}

namespace {

/// With several copies of the model state there are communicators within and across them too.
std::int64_t scratch_of_communicators(int shards, int replicas) {
  const auto of = [](int ranks) { return detail::ReductionScratch(ranks).bytes(); };
  return of(shards * replicas) + (replicas == 1 ? 0 : of(shards) + of(replicas));
}

}  // namespace

CompiledStep compile_step(const LossModel& model, const TrainConfig& settings, int ranks,
                          const Backend& backend, const std::vector<ForwardModel>& forwards) {
  const TrainConfig config = resolved(settings);
  const ShardOptions options = shard_options(config, ranks);
  const ScheduleOptions order{config.zero.prefetch, config.zero.overlap};
  Graph joint = fuse_linear_backward(trace_training(model, options), backend);
  require_gradients(joint);
  FlatLayout layout(joint.parameters, joint.units, ranks / options.replicas);
  const std::int64_t beside = backend.find_kernel != nullptr
                                  ? scratch_of_communicators(layout.ranks(), options.replicas)
                                  : 0;
  joint =
      config.recompute == Recompute::budget
          ? recompute_within(joint, config.memory_budget - beside, layout, options, order, backend)
          : recompute(joint, config.recompute);
  CompiledStep step{config, options, std::move(joint), std::move(layout), {}, {}, beside};
  step.programs.push_back(
      compile(shard_step(step.joint, step.layout, options, backend), order, backend, step.states));
  ShardOptions once = options;
  once.micro_batches = 1;
  once.layer_order = false;
  for (const ForwardModel& forward : forwards) {
    Tracer tracer;
    forward(tracer);
    step.programs.push_back(
        compile(shard(tracer.graph(), step.layout, once), order, backend, step.states));
  }
  return step;
}

}  // namespace ashlar
