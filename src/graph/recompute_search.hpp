// What to make again in backward, from keeping everything down to the smallest peak: one list, from
// which any budget picks.
#pragma once

#include <functional>
#include <vector>

#include "ashlar/op.hpp"
#include "graph/rematerialize.hpp"

namespace ashlar {

/// One way to run backward: the height that the full passes plan for it, in bytes, and operations
/// per micro-batch that it adds.
struct RecomputeChoice {
  Remade remade;
  std::int64_t height = 0;
  double extra_flops = 0;
};

/// What the passes after rematerialize planned: bytes of all arenas, and how many nodes they
/// compiled for it (micro-batches in layer order are nodes of their own).
struct PlannedHeight {
  std::int64_t bytes = 0;
  std::int64_t nodes = 0;
};

/// Choices by rising work and falling height, none worse than another in both. The search takes at
/// each peak the values whose bytes cost the fewest operations, alone, with what they are made of,
/// or a whole unit (a greedy relative of Jain et al., "Checkmate", arXiv:1910.02653, section 3,
/// which solves the same choice as an integer program); it never sees a budget, so a smaller budget
/// never gives a higher peak. Deterministic; ends by node count.
/// @param joint forward and backward, before it is sharded
/// @param gathers parameters come and go with their units (ZeRO stage 3)
/// @param planned_height runs the passes after rematerialize
std::vector<RecomputeChoice> recompute_choices(
    const Graph& joint, const Backend& backend, bool gathers,
    const std::function<PlannedHeight(const Graph&)>& planned_height);

}  // namespace ashlar
