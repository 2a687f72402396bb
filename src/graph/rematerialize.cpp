#include "graph/rematerialize.hpp"

#include <vector>

#include "ashlar/op.hpp"

namespace ashlar {
namespace {

/// Copies a graph node by node; backward's readers get rebuilt values.
class Rebuilder {
 public:
  explicit Rebuilder(const Graph& graph)
      : from_(graph), mapped_(graph.values.size()), rebuilt_(graph.values.size()) {
    out_.graph().units = graph.units;
    out_.graph().parameters = graph.parameters;
  }

  Graph run() {
    for (const ValueId id : from_.inputs) {
      out_.graph().values.push_back(from_[id]);
      const auto copy = static_cast<ValueId>(out_.graph().values.size() - 1);
      out_.graph().inputs.push_back(copy);
      mapped_[index(id)] = Value(&out_, copy);
    }
    for (const Node& node : from_.nodes) copy(node);
    for (const auto& [name, id] : from_.outputs) out_.output(name, mapped_[index(id)]);
    return std::move(out_.graph());
  }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  void copy(const Node& node) {
    out_.set_section(node.section);
    out_.set_backward(node.backward);
    std::vector<Value> inputs;
    for (const ValueId id : node.inputs) {
      out_.set_unit(node.unit);
      inputs.push_back(id == kNoValue ? Value() : node.backward ? rebuilt(id) : mapped_[index(id)]);
    }
    out_.set_unit(node.unit);
    const auto outputs = out_.apply(*node.op, inputs, node.attributes, node.where);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      mapped_[index(node.outputs[i])] = outputs[i];
      ValueInfo& value = out_.graph()[outputs[i].id()];
      value.category = from_[node.outputs[i]].category;
      value.name = from_[node.outputs[i]].name;
    }
  }

  std::vector<Value> all(const std::vector<ValueId>& ids) const {
    std::vector<Value> values;
    for (const ValueId id : ids) values.push_back(id == kNoValue ? Value() : mapped_[index(id)]);
    return values;
  }

  /// What backward reads for a value: views of rebuilt values are views anew.
  Value rebuilt(ValueId id) {
    if (from_[id].producer < 0) return mapped_[index(id)];
    const Node& maker = from_.nodes[index(from_[id].producer)];
    if (maker.backward) return mapped_[index(id)];
    Value& known = rebuilt_[index(id)];
    if (known) return known;
    known = mapped_[index(id)];
    if (maker.op->view != nullptr) {
      const Value input = rebuilt(maker.inputs[0]);
      if (input.id() == mapped_[index(maker.inputs[0])].id()) return known;
      return known = out_.apply(*maker.op, {&input, 1}, maker.attributes, maker.where)[0];
    }
    if (maker.op->rebuild == nullptr || maker.outputs[index(maker.op->rebuilt)] != id) return known;
    out_.set_unit(maker.unit);
    return known = maker.op->rebuild(all(maker.inputs), all(maker.outputs), maker.attributes);
  }

  const Graph& from_;
  Tracer out_;
  std::vector<Value> mapped_;   // by ValueId of from_
  std::vector<Value> rebuilt_;  // by ValueId of from_
};

}  // namespace

Graph rebuild_in_backward(const Graph& graph) { return Rebuilder(graph).run(); }

}  // namespace ashlar
