// The values behind a layout's states on one rank: filled, spread to where they are kept whole,
// read back.
#pragma once

#include <vector>

#include "ashlar/train_step.hpp"
#include "graph/program.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {

class FlatValues {
 public:
  FlatValues(const FlatLayout& layout, const ShardOptions& options, const StateLayout& states,
             const PerSpace<std::byte*>& bases, Communicator& communicator)
      : layout_(layout),
        options_(options),
        states_(states),
        bases_(bases),
        communicator_(communicator) {}

  /// Own shards of what training cannot recompute: masters (or parameters in f32 and of frozen
  /// flats) and moments.
  std::vector<ShardView> shards() const;
  /// Writes own shards of all parameters from `source`, then spread(). What the source throws on
  /// one rank, all throw. Collective.
  void fill(const ParameterSource& source);
  /// Rounds masters into parameters and gathers what this stage keeps whole. Collective.
  void spread();
  /// Copies a parameter as f32 into `values` on rank 0. Collective.
  void read(int parameter, TensorView values);
  /// The first parameter with a gradient that is not finite, over all ranks; -1 if none.
  /// Collective.
  int first_bad_gradient() const;

 private:
  void fill_own(const ParameterSource& source);
  TensorView state(const Flat& flat, std::string_view role) const;
  TensorView own(const Flat& flat, std::string_view role) const;
  bool has_master(const Flat& flat) const { return flat.trainable && flat.dtype != DType::f32; }
  std::string_view source_role(const Flat& flat) const {
    return has_master(flat) ? "master" : "parameter";
  }
  void gather_whole(const Flat& flat, std::string_view role);

  const FlatLayout& layout_;
  const ShardOptions& options_;
  const StateLayout& states_;
  PerSpace<std::byte*> bases_;
  Communicator& communicator_;
};

}  // namespace ashlar
