// One run of nodes of a unit as its bytes see it, and the search for a better order of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/sweep.hpp"

namespace ashlar {

/// What a node does to the bytes of its run. Buffers are numbered within the run.
struct Member {
  std::vector<int> makes, reads;  // buffers, reads once each
  std::vector<int> may_reuse;     // buffers that the first of `makes` may take over
  std::vector<int> after;         // members that must stand before it
  std::int64_t scratch = 0;
};

struct Run {
  NodeRange nodes;
  std::vector<Member> members;
  std::vector<std::int64_t> bytes;  // by buffer
  std::vector<bool> stays;          // by buffer: in use when the run has ended
  std::string signature;            // equal runs have equal ones
};

/// Members in an order of the lowest (largest load, sum of loads) that moves of one member reach.
std::vector<int> lower_order(const Run& run);

}  // namespace ashlar
