// How passes carry what they do not change from one graph to the next.
#pragma once

#include <span>
#include <vector>

#include "ashlar/graph.hpp"

namespace ashlar {

/// Appends an input like `value`, of whatever kind.
Value copy_input(Tracer& out, const ValueInfo& value);

/// Appends `node` of `from` on other inputs, in the unit, section and direction that `out` is set
/// to. @return its outputs, with their categories and names
std::vector<Value> copy_node(Tracer& out, const Graph& from, const Node& node,
                             std::span<const Value> inputs);

}  // namespace ashlar
