// The ops that take the gradients of one copy of the model state on to the other copies, where
// ZeroConfig::group is smaller than the world.
#pragma once

#include <span>
#include <vector>

#include "ashlar/graph.hpp"

namespace ashlar {

/// Sums flats over the `shards` ranks of a group, in fp32 and rank order, without rounding; one
/// collective. @return the own shards of the sums, one after the other, f32
Value reduce_scatter_sums(Tracer& tracer, std::span<const Value> flats, int shards);

/// `sums` over the `replicas` groups, in their order, in place; one collective.
Value all_reduce_replicas(Value sums, int replicas);

/// Rounds sums that lie one after the other into `shards` (states, updated in place).
/// @param round_bf16 to bf16, where the shards are f32
/// @return the shards and, last, f64 [number of shards]: their sums of squares
std::vector<Value> round_sums(Tracer& tracer, Value sums, std::span<const Value> shards,
                              bool round_bf16);

}  // namespace ashlar
