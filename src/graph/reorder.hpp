// The order of nodes chosen to lower the load: inside each run of nodes of one unit and direction,
// where the data allow it. Changes no bit of any result.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar {

/// Moves nodes, one at a time, to where the largest load of their run is lower, or the same and
/// the sum of its loads lower, until none can: what frees much runs early, what allocates runs
/// late. Runs that look alike are ordered alike.
/// Never of a higher load than `graph` as it is.
/// @param graph forward and backward, before it is sharded
Graph reorder(const Graph& graph, const Backend& backend);

}  // namespace ashlar
