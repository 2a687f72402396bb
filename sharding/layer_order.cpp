#include "sharding/layer_order.hpp"

#include "ashlar/ops.hpp"
#include "graph/copy.hpp"
#include "graph/unit_run.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

class LayerOrder {
 public:
  LayerOrder(const Graph& joint, std::int64_t micro_batches)
      : from_(joint),
        mapped_(index(micro_batches), std::vector<Value>(joint.values.size())),
        summed_(joint.values.size()),
        sums_(joint.values.size()) {
    out_.graph().units = joint.units;
    out_.graph().parameters = joint.parameters;
    for (const auto& [name, id] : joint.outputs)
      summed_[index(id)] = name == kLoss || name.starts_with(gradient_name(""));
  }

  Graph run() {
    for (const ValueId id : from_.inputs) copy_input(id);
    for (int first = 0; first < static_cast<int>(from_.nodes.size());) {
      const int last = end_of_unit_run(from_, first);
      for (std::size_t k = 0; k < mapped_.size(); ++k) {
        out_.set_micro_batch(static_cast<int>(k));
        for (int n = first; n < last; ++n) copy(from_.nodes[index(n)], k);
      }
      first = last;
    }
    for (const ValueId id : from_.inputs) add_to_sum(id);
    for (const auto& [name, id] : from_.outputs)
      out_.output(name, summed_[index(id)] ? sums_[index(id)] : mapped_.back()[index(id)]);
    return std::move(out_.graph());
  }

 private:
  /// Data once per micro-batch; parameters and the cotangent of the loss are the same for all.
  void copy_input(ValueId id) {
    const ValueInfo& value = from_[id];
    const bool data = value.input == InputKind::data && value.name != kLossCotangent;
    Value copy;
    for (std::size_t k = 0; k < mapped_.size(); ++k) {
      if (k == 0 || data) {
        copy = ashlar::copy_input(out_, value);
        out_.graph()[copy.id()].micro_batch = static_cast<int>(k);
      }
      mapped_[k][index(id)] = copy;
    }
  }

  void copy(const Node& node, std::size_t k) {
    out_.set_unit(node.unit);
    out_.set_backward(node.backward);
    out_.set_section(node.section);
    std::vector<Value> inputs;
    for (const ValueId id : node.inputs)
      inputs.push_back(id == kNoValue ? Value() : mapped_[k][index(id)]);
    const auto outputs = copy_node(out_, from_, node, inputs);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const ValueId id = node.outputs[i];
      mapped_[k][index(id)] = outputs[i];
      if (summed_[index(id)]) add_to_sum(id, k);
    }
  }

  void add_to_sum(ValueId id, std::size_t k) {
    Value& sum = sums_[index(id)];
    sum = k == 0 ? mapped_[k][index(id)] : add(sum, mapped_[k][index(id)]);
    out_.graph()[sum.id()].category = from_[id].category;
  }

  /// A gradient that is an input: of a parameter that the loss is linear in.
  void add_to_sum(ValueId id) {
    if (!summed_[index(id)]) return;
    for (std::size_t k = 0; k < mapped_.size(); ++k) add_to_sum(id, k);
  }

  const Graph& from_;
  Tracer out_;
  std::vector<std::vector<Value>> mapped_;  // by micro-batch and ValueId of from_
  std::vector<bool> summed_;                // by ValueId of from_
  std::vector<Value> sums_;                 // by ValueId of from_
};

}  // namespace

Graph in_layer_order(const Graph& joint, std::int64_t micro_batches) {
  return LayerOrder(joint, micro_batches).run();
}

}  // namespace ashlar
