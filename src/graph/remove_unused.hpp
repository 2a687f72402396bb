// Dead code: nodes whose results nobody reads.
#pragma once

#include "ashlar/graph.hpp"

namespace ashlar {

/// The graph without nodes that no output depends on. Inputs stay; the order stays. For graphs of
/// pure nodes: before sharding adds updates of states.
Graph remove_unused(const Graph& graph);

}  // namespace ashlar
