// The first passes of TrainStep on their own, and a look into the others, for tests, reports and
// tools.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ashlar/caching_resource.hpp"
#include "ashlar/train_step.hpp"
#include "graph/executor.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {

/// trace and differentiate: forward and backward, one output per gradient.
Graph trace_training(const LossModel& model, const ShardOptions& options);

/// The joint graph as backward is to run it, by a rule. @param how not budget
Graph recompute(const Graph& joint, Recompute how);

/// The joint graph whose planned arenas fit `budget` bytes for the fewest operations.
/// @throws InvalidArgument with the smallest height found when none fits.
Graph recompute_within(const Graph& joint, std::int64_t budget, const FlatLayout& layout,
                       const ShardOptions& options, const ScheduleOptions& order,
                       const Backend& backend);

/// The joint graph with its nodes and micro-batches in the order that they run in, sharded.
Graph shard_step(const Graph& joint, const FlatLayout& layout, const ShardOptions& options,
                 const Backend& backend);

/// What helps where memory is short: "use more ranks, a higher stage, ..."; nothing that is on.
std::string relief(int stage, Recompute how);

/// TrainConfig's view of the shard pass, `automatic` resolved. @param ranks of the world
ShardOptions shard_options(const TrainConfig& config, int ranks);

/// Ranks that share one copy of the model state. @throws InvalidArgument unless they divide
/// `ranks`.
int shards_of(const ZeroConfig& zero, int ranks);

/// What runs a step when it is not the CPU.
struct DeviceSide {
  Backend backend;
  ExecutionTarget target;
  /// What libraries choose at run time is made the same on all ranks or refused, and hashed:
  /// agree_on_libraries of ops/cuda_backend.hpp. Collective. Null: nothing is chosen.
  std::uint64_t (*agree_on_libraries)(Communicator& ranks, std::span<const Program> programs,
                                      StreamRef stream) = nullptr;
  /// The step's alone, with the communicator's windows and scratch: its peak is the step's. Null:
  /// TrainConfig::memory, whose use by others is not known.
  std::shared_ptr<CachingResource> memory = nullptr;
  bool sums_on_host = false;  // the communicator has no scratch on the device
};

/// Called on every rank while a TrainStep is made; each may be empty.
struct TrainStep::Hooks {
  std::function<void(Program&)> compiled;  // the step's, before the ranks compare it
  std::function<void(Executor&)> bound;    // the step's, before its first run
  const DeviceSide* device = nullptr;      // null: the CPU; outlives the step
};

}  // namespace ashlar
