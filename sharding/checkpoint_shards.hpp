// The caller's shard views, by flat and by the role that they have on disk.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ashlar/communicator.hpp"
#include "ashlar/sharding.hpp"

namespace ashlar {

/// The views of one flat by the role that they have on disk.
struct FlatShards {
  std::map<std::string, TensorView> saved;  // kWeight and the optimizer's states
  std::optional<TensorView> rounded;        // "parameter" beside "master"
};

/// Rank r has shard r mod layout.ranks(). @throws InvalidArgument unless each shard has as many
/// ranks.
void require_copies(const Communicator& communicator, const FlatLayout& layout);

/// One FlatShards per flat of the layout.
/// @throws InvalidArgument for a view of the wrong size, a role given twice, a flat without
/// weights.
std::vector<FlatShards> group_by_flat(const FlatLayout& layout, std::span<const ShardView> shards);

}  // namespace ashlar
