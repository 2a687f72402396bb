#include "simulate/collective_time.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "ashlar/error.hpp"
#include "base/printable.hpp"

namespace ashlar::simulate {
namespace {

/// A gather (or a scatter, its mirror) among `ranks`, `nodes` of `local` each.
struct Exchange {
  double bytes;
  double ranks, nodes, local;
  const Links& node;
  const Links& network;
  double network_rate;  // of a node, all cards

  bool one_node() const { return nodes == 1; }

  double ring() const {
    const double moved = bytes * (ranks - 1) / ranks;
    const double inside = local > 1 ? moved / node.effective_rate() : 0;
    if (one_node()) return (ranks - 1) * node.latency_seconds + inside;
    return (ranks - 1) * network.latency_seconds + std::max(inside, moved / network_rate);
  }

  double tree() const {
    const double inside = std::ceil(std::log2(local)) * node.latency_seconds +
                          bytes * (local - 1) / local / node.effective_rate();
    if (one_node()) return inside;
    return inside + std::ceil(std::log2(nodes)) * network.latency_seconds +
           bytes * (nodes - 1) / nodes / network_rate;
  }

  double hierarchical() const {
    const double inside =
        (local - 1) * node.latency_seconds + bytes * (local - 1) / local / node.effective_rate();
    if (one_node()) return inside;
    return inside + (nodes - 1) * network.latency_seconds +
           bytes * (nodes - 1) / nodes / network_rate;
  }

  double by(Algorithm algorithm) const {
    switch (algorithm) {
      case Algorithm::ring:
        return ring();
      case Algorithm::tree:
        return tree();
      case Algorithm::hierarchical:
        return hierarchical();
      case Algorithm::automatic:
        break;
    }
    return std::min({ring(), tree(), hierarchical()});
  }
};

constexpr std::array<std::string_view, 4> kNames{"auto", "ring", "tree", "hierarchical"};

}  // namespace

std::string_view name_of(CollectiveKind kind) {
  constexpr std::array<std::string_view, 3> kKinds{"all_gather", "reduce_scatter", "all_reduce"};
  return kKinds[static_cast<std::size_t>(kind)];
}

std::span<const std::string_view> algorithm_names() { return kNames; }

Algorithm algorithm_of(std::string_view name) {
  const auto found = std::ranges::find(kNames, name);
  if (found != kNames.end()) return static_cast<Algorithm>(found - kNames.begin());
  throw InvalidArgument(fmt::format("unknown collective algorithm '{}'; known: {}", printable(name),
                                    fmt::join(kNames, ", ")));
}

Placement placement(int ranks, int stride, const Cluster& cluster) {
  const int size = cluster.devices_per_node, all = ranks * stride;
  if (all <= size) return {1, ranks, 1};
  if (all % size != 0) {
    throw InvalidArgument(
        fmt::format("{} ranks do not fill nodes of {} ({}); take a multiple of {}, or {} at most",
                    all, size, cluster.name, size, size));
  }
  if (stride < size ? size % stride != 0 : stride % size != 0) {
    throw InvalidArgument(fmt::format(
        "sharding groups of {} ranks and nodes of {} ({}): one must be a multiple of the other",
        stride, size, cluster.name));
  }
  const int local = std::max(1, size / stride);
  return {ranks / local, local, std::min(stride, size)};
}

double seconds_of(CollectiveKind kind, double bytes, int ranks, const Cluster& cluster,
                  Algorithm algorithm, int stride) {
  const Placement where = placement(ranks, stride, cluster);
  if (ranks <= 1) return 0;
  const Exchange exchange{bytes,
                          static_cast<double>(ranks),
                          static_cast<double>(where.nodes),
                          static_cast<double>(where.local),
                          cluster.node,
                          cluster.network,
                          cluster.network_rate() / where.beside};
  const double once = exchange.by(algorithm);
  return kind == CollectiveKind::all_reduce ? 2 * once : once;
}

}  // namespace ashlar::simulate
