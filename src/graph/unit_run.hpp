// Nodes of one unit that follow one another: what is gathered together runs together.
#pragma once

#include "ashlar/graph.hpp"

namespace ashlar {

/// The end of the run of nodes of one unit and section that begins at node `first`; nodes of no
/// unit belong to the run that they stand in.
inline int end_of_unit_run(const Graph& graph, int first) {
  int unit = -1;
  for (int n = first; n < static_cast<int>(graph.nodes.size()); ++n) {
    const Node& node = graph.nodes[static_cast<std::size_t>(n)];
    if (node.section != graph.nodes[static_cast<std::size_t>(first)].section) return n;
    if (node.unit < 0) continue;
    if (unit >= 0 && node.unit != unit) return n;
    unit = node.unit;
  }
  return static_cast<int>(graph.nodes.size());
}

}  // namespace ashlar
