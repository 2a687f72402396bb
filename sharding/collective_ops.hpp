// The ops that sharding adds to a graph: views into flats, packing, collectives, accumulation, norm
// and update.
#pragma once

#include <span>
#include <vector>

#include "ashlar/op.hpp"
#include "ashlar/optimizer.hpp"
#include "ashlar/sharding.hpp"
#include "graph/rank_groups.hpp"

namespace ashlar {

/// Flats of one collective at most.
inline constexpr std::size_t kMostFlats = 64;

/// What every collective's node says: how many ranks, and which.
Attributes among(Among who, int ranks);

/// Elements [offset, offset + shape.elements()) of a flat, as a view.
Value slice_flat(Value flat, std::int64_t offset, const Shape& shape);

/// This rank's `shard` elements of a whole flat, as a view.
Value own_shard(Value flat, std::int64_t shard);

/// A flat of `elements` elements with `parts` at `offsets`; gaps are zero. The planner lets the
/// parts be computed in place. With `base`, a whole flat that is a state already, that state is
/// updated instead.
Value pack(Tracer& tracer, Value base, std::span<const Value> parts,
           std::span<const std::int64_t> offsets, std::int64_t elements);

/// Whole flats from the shards of a group's `ranks`; one collective. `prefetch` lets the schedule
/// start it early.
std::vector<Value> gather(Tracer& tracer, std::span<const Value> shards, int ranks, bool prefetch);
/// The same into flats that are states already (each shard may be the own part of its flat).
std::vector<Value> gather_into(Tracer& tracer, std::span<const Value> shards,
                               std::span<const Value> wholes, int ranks);

/// Sums flats over a group's ranks into `shards` (states, updated in place); one collective.
/// @param accumulate add over the micro-batches @param round_bf16 round the last micro-batch's
/// result to bf16
/// @return the shards and, last, f64 [number of flats]: sums of squares of the own shards after the
/// last micro-batch
std::vector<Value> reduce_scatter(Tracer& tracer, std::span<const Value> flats,
                                  std::span<const Value> shards, int ranks, bool accumulate,
                                  bool round_bf16);

/// The sum over all ranks of a small value, in rank order.
Value all_reduce(Value x, int ranks);

/// sum += x over the micro-batches of a step: the first overwrites. `sum` is a state.
Value accumulate(Value sum, Value x);

/// (norm, factor), f64 scalars: the norm of the gradient from a group's sums of squares, f64
/// [ranks x flats], added in the order (flat, rank); factor = clip / (norm + 1e-6) where norm >
/// clip > 0, else 1.
std::pair<Value, Value> gradient_norm(Value squares, int ranks, double clip);

/// One optimizer step's, over a flat or a shard of it.
struct UpdateOperands {
  Value gradient;
  Value master;  // f32: the parameters themselves in fp32 training
  std::vector<Value> states;
  Value parameter;  // 16-bit copy to write; absent in fp32 training
};
/// Attributes of a rule's node for so many flats. @param segments (begin, end, decays) triples over
/// whole flats, which lie end to end @param sharded the operands are this rank's shards
Attributes update_attributes(const OptimizerConfig& rule, std::size_t flats,
                             std::vector<std::int64_t> segments, bool sharded);

/// @param flats all of the same element types @param factor f64 scalar that gradients are
/// multiplied by; may be absent
/// @return of each flat master, states and, if given, parameter after the update
std::vector<Value> update(Tracer& tracer, const OptimizerConfig& rule,
                          std::span<const UpdateOperands> flats, Value factor,
                          std::vector<std::int64_t> segments, bool sharded);
/// True where a node's flats are updated in one launch: the backend has a kernel for the row.
bool updates_together(const Backend& backend);

}  // namespace ashlar
