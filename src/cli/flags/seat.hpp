// The cores that a rank may use: what the number of threads is made of.
#pragma once

#include <bitset>
#include <span>

namespace ashlar::cli {

/// Where a rank may run.
struct Seat {
  std::bitset<1024> cores;  // by number, of its node
  double quota = 0;         // cores' worth of time, shared with the other ranks of the node
};

/// This process's.
Seat take_seat();

/// The cores that `mine` may use, divided by the ranks of `node` (its own among them) that may use
/// some of the same; never more than its share of the quota, at least 1.
int share_of_cores(const Seat& mine, std::span<const Seat> node);

/// What each of that many ranks of this node would have as threads of this process.
int default_threads(int ranks);

}  // namespace ashlar::cli
