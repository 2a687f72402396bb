#include "graph/rematerialize.hpp"

#include "ashlar/op.hpp"
#include "graph/copy.hpp"
#include "graph/cost.hpp"
#include "graph/remove_unused.hpp"

namespace ashlar {
namespace {

std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

/// Copies a graph node by node; backward's readers get remade values.
class Rematerializer {
 public:
  Rematerializer(const Graph& graph, const Remade& remade)
      : from_(graph), remade_(remade), mapped_(graph.values.size()), again_(graph.values.size()) {
    out_.graph().units = graph.units;
    out_.graph().parameters = graph.parameters;
  }

  Graph run() {
    for (const ValueId id : from_.inputs) mapped_[index(id)] = copy_input(out_, from_[id]);
    for (const Node& node : from_.nodes) copy(node);
    for (const auto& [name, id] : from_.outputs) out_.output(name, mapped_[index(id)]);
    return std::move(out_.graph());
  }

 private:
  void copy(const Node& node) {
    out_.set_section(node.section);
    out_.set_backward(node.backward);
    out_.set_unit(node.unit);
    emit(node, node.backward ? read_in_backward(node) : all(mapped_, node.inputs), mapped_);
  }

  void emit(const Node& node, std::span<const Value> inputs, std::vector<Value>& into) {
    const auto outputs = copy_node(out_, from_, node, inputs);
    for (std::size_t i = 0; i < outputs.size(); ++i) into[index(node.outputs[i])] = outputs[i];
  }

  const Node* maker(ValueId id) const {
    return from_[id].producer < 0 ? nullptr : &from_.nodes[index(from_[id].producer)];
  }

  static std::vector<Value> all(const std::vector<Value>& known, std::span<const ValueId> ids) {
    std::vector<Value> values;
    for (const ValueId id : ids) values.push_back(id == kNoValue ? Value() : known[index(id)]);
    return values;
  }

  /// The inputs of a node that runs in backward: what its own unit made may be made again.
  std::vector<Value> read_in_backward(const Node& node) {
    std::vector<Value> values = all(mapped_, node.inputs);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const Node* source = node.inputs[i] == kNoValue ? nullptr : maker(node.inputs[i]);
      if (source != nullptr && source->unit == node.unit) values[i] = in_backward(node.inputs[i]);
    }
    return values;
  }

  /// What backward reads for a value: itself where it is kept. Views of remade values are views
  /// anew.
  Value in_backward(ValueId id) {
    const Node* node = maker(id);
    if (node == nullptr || node->backward) return mapped_[index(id)];
    Value& known = again_[index(id)];
    if (known) return known;
    if (node->op->view != nullptr) {
      const Value input = read_in_backward(*node)[0];
      const bool kept = input.id() == mapped_[index(node->inputs[0])].id();
      return known = kept ? mapped_[index(id)]
                          : out_.apply(*node->op, {&input, 1}, node->attributes, node->where)[0];
    }
    if (!remade_[index(id)]) return known = mapped_[index(id)];
    if (rebuilds_alone(*node, id, remade_)) {
      const std::vector<Value> inputs = read_in_backward(*node);
      std::vector<Value> outputs;
      for (const ValueId other : node->outputs)
        outputs.push_back(other == id ? Value() : mapped_[index(other)]);
      return again_[index(id)] = node->op->rebuild(inputs, outputs, node->attributes);
    }
    emit(*node, read_in_backward(*node), again_);
    return again_[index(id)];
  }

  const Graph& from_;
  const Remade& remade_;
  Tracer out_;
  std::vector<Value> mapped_;  // by ValueId of from_
  std::vector<Value> again_;   // by ValueId of from_: what backward reads
};

bool is_parameter_or_constant(const Graph& graph, ValueId id) {
  return graph[id].input == InputKind::parameter ||
         (graph[id].producer >= 0 && graph.nodes[index(graph[id].producer)].inputs.empty());
}

/// True when a value is made of what enters its unit and is no larger than that: kept instead.
bool enters_unit(const Graph& graph, const Node& maker, ValueId id) {
  if (can_rebuild(maker, id)) return false;
  std::int64_t entering = 0;
  for (const ValueId input : maker.inputs) {
    if (input == kNoValue || is_parameter_or_constant(graph, input)) continue;
    const int producer = graph[input].producer;
    if (producer >= 0 && graph.nodes[index(producer)].unit == maker.unit) return false;
    entering += graph[input].type.bytes();
  }
  return graph[id].type.bytes() <= entering;
}

/// The unit whose backward follows its forward.
int last_forward_unit(const Graph& graph) {
  int unit = -1;
  for (const Node& node : graph.nodes) {
    if (!node.backward && node.unit >= 0) unit = node.unit;
  }
  return unit;
}

}  // namespace

bool can_rebuild(const Node& node, ValueId id) {
  return node.op->rebuild != nullptr && node.outputs[index(node.op->rebuilt)] == id;
}

bool rebuilds_alone(const Node& node, ValueId id, const Remade& remade) {
  if (!can_rebuild(node, id)) return false;
  for (const ValueId other : node.outputs) {
    if (other != id && remade[index(other)]) return false;
  }
  return true;
}

bool may_be_remade(const Graph& graph, ValueId id) {
  if (graph[id].producer < 0) return false;
  const Node& maker = graph.nodes[index(graph[id].producer)];
  if (maker.backward || maker.op->view != nullptr || !maker.op->recompute) return false;
  for (const auto& [name, output] : graph.outputs) {
    if (output == id) return false;
  }
  return true;
}

Remade cheap_to_remake(const Graph& graph) {
  Remade remade(graph.values.size(), false);
  for (const Node& node : graph.nodes) {
    if (!node.backward && node.op->rebuild != nullptr)
      remade[index(node.outputs[index(node.op->rebuilt)])] = true;
  }
  return remade;
}

Remade attention_remade(const Graph& graph) {
  Remade remade = cheap_to_remake(graph);
  for (const Node& node : graph.nodes) {
    if (node.backward || cost_of(graph, node).kind != Cost::Class::attention) continue;
    for (const ValueId id : node.outputs) remade[index(id)] = true;
  }
  return remade;
}

Remade units_remade(const Graph& graph) {
  Remade remade(graph.values.size(), false);
  const int last = last_forward_unit(graph);
  for (const Node& node : graph.nodes) {
    if (node.unit == last) continue;
    for (const ValueId id : node.outputs)
      remade[index(id)] = may_be_remade(graph, id) && !enters_unit(graph, node, id);
  }
  return remade;
}

Graph rematerialize(const Graph& graph, const Remade& remade) {
  return remove_unused(Rematerializer(graph, remade).run());
}

}  // namespace ashlar
