// The ranks of a step as a grid: consecutive ranks are the shards of one copy of the model state,
// ranks of equal place in their groups the replicas of one shard.
#pragma once

#include "ashlar/communicator.hpp"
#include "ashlar/graph.hpp"

namespace ashlar {

/// Whom a node works with: its attribute "among", which collectives have beside "ranks", how many
/// those are.
enum class Among : std::uint8_t { world, shards, replicas };

inline constexpr std::string_view kAmong = "among";

inline Among among_of(const Node& node) {
  return node.attributes.has(kAmong) ? static_cast<Among>(node.attributes.integer(kAmong))
                                     : Among::world;
}

/// What a rank reaches the others by. Owns nothing.
struct RankGroups {
  RankGroups(Communicator& all) : world(&all), shards(&all) {}  // NOLINT: one copy on all ranks

  Communicator* world;
  Communicator* shards;
  Communicator* replicas = nullptr;  // null: there is one copy

  Communicator& of(Among among) const {
    return among == Among::world ? *world : among == Among::shards ? *shards : *replicas;
  }
  /// Each communicator once.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    visit(*world);
    if (replicas == nullptr) return;
    visit(*shards);
    visit(*replicas);
  }
};

}  // namespace ashlar
