// What a sharded optimizer keeps between steps, in two blocks of memory: one that peers read, one
// that they don't.
#pragma once

#include <string>

#include "ashlar/buffer.hpp"
#include "ashlar/communicator.hpp"
#include "graph/program.hpp"
#include "sharding/flat_values.hpp"
#include "sharding/registered.hpp"

namespace ashlar {

class ShardedStates {
 public:
  /// Allocates; zeros. @throws OutOfMemory.
  ShardedStates(const FlatLayout& layout, const Registered& registered,
                const OptimizerConfig& optimizer, const ShardedOptions& options,
                const ElementOps& ops, Communicator& communicator);

  const StateViews& views() const { return views_; }
  /// As allocated, without the caller's memory.
  PerCategory<std::int64_t> bytes() const { return layout_.by_category(); }

 private:
  StateLayout layout_;
  PerSpace<Buffer> memory_;
  StateViews views_;
};

/// Model state of a rank: what is allocated, and what the caller has; gradients that are reported
/// from elsewhere stay there at stages 0 and 1.
PerCategory<std::int64_t> with_callers_memory(PerCategory<std::int64_t> bytes,
                                              const FlatLayout& layout,
                                              const Registered& registered, int stage);
/// Model state of a rank that shards nothing, without padding.
/// @param optimizer_states per element of a trainable parameter
PerCategory<std::int64_t> unsharded(const FlatLayout& layout, const Registered& registered,
                                    std::size_t optimizer_states);

/// True when a flat's f32 weights are a state beside its parameters.
inline bool has_master(const Flat& flat) { return flat.trainable && flat.dtype != DType::f32; }

/// One line for users. @param gradients_stay the model has them in memory of its own
std::string summarise(const PerCategory<std::int64_t>& per_rank,
                      const PerCategory<std::int64_t>& unsharded, bool gradients_stay);

}  // namespace ashlar
