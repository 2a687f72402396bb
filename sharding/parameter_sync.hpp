// How ranks come to hold the same parameters: the same registration, the same first values, the
// same values after each update.
#pragma once

#include "ashlar/buffer.hpp"
#include "ashlar/communicator.hpp"
#include "sharding/flat_values.hpp"
#include "sharding/registered.hpp"

namespace ashlar {

/// The learning rate of a rule without a schedule.
double rate_of(const OptimizerConfig& optimizer);
/// @throws InvalidArgument unless it is finite and 0 or more.
void require_rate(double rate);

/// The list with its units resolved, after every rank has shown that it has the same and that the
/// options fit. Collective. @throws InvalidArgument on every rank.
Registered agree(const ParameterList& list, Communicator& communicator,
                 const OptimizerConfig& optimizer, const ShardedOptions& options);

/// The caller's memory gets rank 0's values, or must have them already. Collective.
/// @throws InvalidArgument naming the parameter that differs.
void take_over_values(const FlatLayout& layout, const Registered& registered,
                      const ShardedOptions& options, Communicator& communicator);

/// Stages 1 and 2, after an update: every rank's own part of the trainable parameters on all ranks.
/// The caller's memory travels through buckets of `pool`. Collective.
/// @param along goes with the last bucket
void spread_parameters(const FlatLayout& layout, const Registered& registered,
                       const StateViews& states, ElementOps& ops, MemoryResource& pool,
                       Communicator& communicator, std::int64_t bucket_bytes,
                       std::vector<Transfer> along);

/// The caller's parameters as flats, for what wants flats (checkpoints). Parameters that the
/// optimizer owns are their own image.
class ParameterImage {
 public:
  /// @param whole every flat [padded], else this rank's [shard]
  ParameterImage(const FlatLayout& layout, const Registered& registered, const StateViews& states,
                 Communicator& communicator, bool whole);
  /// The states, with "<flat>/parameter" of every flat.
  const StateViews& views() const { return views_; }
  /// Into the caller's memory, from whole flats.
  void write_back() const;

 private:
  const FlatLayout& layout_;
  const Registered& registered_;
  StateViews views_;
  std::vector<Buffer> memory_;
};

}  // namespace ashlar
