// What a collective takes on a cluster, by the alpha-beta model over two tiers: links inside a node
// and the network between nodes.
#pragma once

#include <span>
#include <string_view>

#include "simulate/cluster.hpp"

namespace ashlar::simulate {

enum class CollectiveKind : std::uint8_t { all_gather, reduce_scatter, all_reduce };
std::string_view name_of(CollectiveKind kind);

/// ring: one ring through all ranks, as wide as the node's cards together (Thakur et al. 2005,
/// section 4.1). tree: recursive doubling and halving (section 4.2); an all-reduce is a double
/// binary tree (Sanders et al. 2009). hierarchical: a ring between nodes for each device, then one
/// within each node (BlueConnect, Cho et al. 2019). automatic: the quickest of them.
enum class Algorithm : std::uint8_t { automatic, ring, tree, hierarchical };

std::span<const std::string_view> algorithm_names();
/// @throws InvalidArgument naming the four.
Algorithm algorithm_of(std::string_view name);

/// Where the ranks of a group lie: every `stride`-th of ranks that fill nodes one after the other.
struct Placement {
  int nodes = 1;
  int local = 1;   // ranks of the group on each
  int beside = 1;  // groups of a node that share its network, each in the same collective

  bool one_node() const { return nodes == 1; }
};
/// @throws InvalidArgument when ranks x stride are more than a node has but no multiple of it, or
/// `stride` neighbours neither divide a node nor fill whole ones.
Placement placement(int ranks, int stride, const Cluster& cluster);

/// Seconds for `ranks` ranks, each `stride` from the next, while as many groups do the same.
/// @param bytes the whole that is gathered, scattered or summed, on the wire. 0 for one rank.
/// @throws InvalidArgument as placement.
double seconds_of(CollectiveKind kind, double bytes, int ranks, const Cluster& cluster,
                  Algorithm algorithm, int stride = 1);

}  // namespace ashlar::simulate
