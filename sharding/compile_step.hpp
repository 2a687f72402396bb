// A training step from model code to bytes, as data: what TrainStep runs, `ashlar report` counts
// and `ashlar simulate` times. Nothing is allocated for values, so that any model on any number of
// ranks compiles anywhere.
#pragma once

#include <vector>

#include "ashlar/train_step.hpp"
#include "graph/program.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {

struct CompiledStep {
  TrainConfig config;  // `automatic` resolved
  ShardOptions options;
  Graph joint;                    // forward and backward, before the shard pass
  FlatLayout layout;              // over the ranks that share one copy of the model state
  StateLayout states;             // of all programs
  std::vector<Program> programs;  // the step, then the forward models
  /// What the communicators of a rank's GPU add sums in; none on the CPU.
  std::int64_t communicator_bytes = 0;

  int ranks() const { return layout.ranks() * options.replicas; }
  /// Of a rank: states, and transients of the program that needs most.
  PerSpace<std::int64_t> arena_bytes() const;
  /// The plan's prediction of the step, within arenas that serve the forward models too, with
  /// communicator_bytes as workspace.
  MemoryUse planned() const;
};

/// Runs the passes in order: trace, differentiate, rematerialize, shard, schedule, plan. A pure
/// function of its arguments. @param ranks any number; they need not exist.
/// @throws InvalidArgument for a step without anything to train, for settings that contradict each
/// other and for a memory budget that cannot be met.
CompiledStep compile_step(const LossModel& model, const TrainConfig& config, int ranks,
                          const Backend& backend, const std::vector<ForwardModel>& forwards = {});

}  // namespace ashlar
