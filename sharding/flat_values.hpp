// The values behind a layout's states on one rank: filled, spread to where they are kept whole,
// read back.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/optimizer.hpp"
#include "ashlar/sharding.hpp"

namespace ashlar {

class Communicator;

/// Where states lie, by state_name(): whole [padded], or this rank's [shard] of it.
using StateViews = std::map<std::string, TensorView, std::less<>>;

/// This rank's part of a view that holds the flat whole; a view of the shard alone as it is.
TensorView own_part(const Flat& flat, const TensorView& view, int rank);

class FlatValues {
 public:
  FlatValues(const FlatLayout& layout, const OptimizerConfig& optimizer, StateViews states,
             Communicator& communicator);

  /// Own shards of what training cannot recompute: masters (or parameters in f32 and of frozen
  /// flats) and moments.
  std::vector<ShardView> shards() const;
  /// Writes own shards of all parameters from `source`, then spread(). What the source throws on
  /// one rank, all throw. Collective.
  void fill(const ParameterSource& source);
  /// Rounds masters into parameters and gathers what this stage keeps whole. Collective.
  void spread();
  /// Copies a parameter as f32 into `values` on rank 0. Collective.
  /// @param role a state of the optimizer; empty: the weights
  void read(int parameter, TensorView values, std::string_view role = {}) const;
  /// The first parameter with a gradient that is not finite, over all ranks; -1 if none.
  /// Collective.
  int first_bad_gradient() const;

 private:
  void fill_own(const ParameterSource& source);
  const TensorView& state(const Flat& flat, std::string_view role) const;
  TensorView own(const Flat& flat, std::string_view role) const;
  bool has_master(const Flat& flat) const { return flat.trainable && flat.dtype != DType::f32; }
  std::string_view source_role(const Flat& flat) const {
    return has_master(flat) ? "master" : "parameter";
  }
  void gather_whole(const Flat& flat, std::string_view role);

  const FlatLayout& layout_;
  std::vector<std::string> roles_;  // the optimizer's states
  StateViews states_;
  Communicator& communicator_;
};

}  // namespace ashlar
