#include "graph/copy.hpp"

namespace ashlar {

Value copy_input(Tracer& out, const ValueInfo& value) {
  Graph& graph = out.graph();
  const auto id = static_cast<ValueId>(graph.values.size());
  graph.values.push_back(value);
  graph.inputs.push_back(id);
  return {&out, id};
}

std::vector<Value> copy_node(Tracer& out, const Graph& from, const Node& node,
                             std::span<const Value> inputs) {
  auto outputs = out.apply(*node.op, inputs, node.attributes, node.where);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    ValueInfo& value = out.graph()[outputs[i].id()];
    value.category = from[node.outputs[i]].category;
    value.name = from[node.outputs[i]].name;
  }
  return outputs;
}

}  // namespace ashlar
