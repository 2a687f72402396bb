#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "ashlar/op.hpp"

namespace ashlar {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

[[noreturn]] void fail(const Graph& graph, int n, std::string_view what) {
  throw Error(fmt::format("graph: node {} ({}) {}", n, graph.nodes[index(n)].op->name, what));
}

void check_types(const Graph& graph, int n) {
  const Node& node = graph.nodes[index(n)];
  std::vector<TensorType> inputs;
  for (const ValueId id : node.inputs) {
    inputs.push_back(id == kNoValue ? TensorType{} : graph[id].type);
    if (id != kNoValue && graph[id].producer >= n) fail(graph, n, "reads a value made later");
  }
  const auto types = node.op->shape(inputs, node.attributes);
  if (types.size() != node.outputs.size()) fail(graph, n, "has another number of outputs");
  for (std::size_t i = 0; i < types.size(); ++i) {
    const ValueInfo& value = graph[node.outputs[i]];
    if (value.producer != n) fail(graph, n, "is not the producer of its output");
    if (!(value.type == types[i])) fail(graph, n, "has an output of another type");
  }
}

}  // namespace

void validate(const Graph& graph) {
  std::vector<int> overwritten(graph.values.size(), -1);  // by the node that updates it in place
  Section section = Section::prologue;
  for (int n = 0; n < static_cast<int>(graph.nodes.size()); ++n) {
    const Node& node = graph.nodes[index(n)];
    if (node.section < section) fail(graph, n, "stands behind a later section");
    section = node.section;
    check_types(graph, n);
    for (const ValueId id : node.inputs) {
      if (id != kNoValue && overwritten[index(id)] >= 0) {
        fail(graph, n, fmt::format("reads what node {} has overwritten", overwritten[index(id)]));
      }
    }
    for (const auto& [output, input] : in_place_pairs(node)) {
      overwritten[index(node.inputs[index(input)])] = n;
    }
  }
}

}  // namespace ashlar
