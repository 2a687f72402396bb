#include "graph/remove_unused.hpp"

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// By node: does an output depend on it?
std::vector<bool> used_nodes(const Graph& graph) {
  std::vector<bool> value(graph.values.size(), false), node(graph.nodes.size(), false);
  for (const auto& [name, id] : graph.outputs) value[index(id)] = true;
  for (std::size_t n = graph.nodes.size(); n-- > 0;) {
    for (const ValueId id : graph.nodes[n].outputs) node[n] = node[n] || value[index(id)];
    if (!node[n]) continue;
    for (const ValueId id : graph.nodes[n].inputs) {
      if (id != kNoValue) value[index(id)] = true;
    }
  }
  return node;
}

}  // namespace

Graph remove_unused(const Graph& graph) {
  const std::vector<bool> used = used_nodes(graph);
  Graph out;
  out.parameters = graph.parameters;
  out.units = graph.units;
  std::vector<ValueId> renumbered(graph.values.size(), kNoValue);
  const auto take = [&](ValueId id) {
    renumbered[index(id)] = static_cast<ValueId>(out.values.size());
    out.values.push_back(graph[id]);
    out.values.back().producer = graph[id].producer < 0 ? -1 : static_cast<int>(out.nodes.size());
    return renumbered[index(id)];
  };
  for (const ValueId id : graph.inputs) out.inputs.push_back(take(id));
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    if (!used[n]) continue;
    Node node = graph.nodes[n];
    for (ValueId& id : node.inputs) id = id == kNoValue ? kNoValue : renumbered[index(id)];
    for (ValueId& id : node.outputs) id = take(id);
    out.nodes.push_back(std::move(node));
  }
  for (const auto& [name, id] : graph.outputs)
    out.outputs.emplace_back(name, renumbered[index(id)]);
  return out;
}

}  // namespace ashlar
