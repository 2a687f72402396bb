// The first passes of TrainStep on their own, for tests, reports and tools.
#pragma once

#include "ashlar/train_step.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {

/// trace and differentiate: forward and backward, one output per gradient.
Graph trace_training(const LossModel& model, const ShardOptions& options);

/// TrainConfig's view of the shard pass, `automatic` resolved.
ShardOptions shard_options(const TrainConfig& config);

}  // namespace ashlar
