// Reverse mode: walk the nodes backwards, ask each row for the cotangents of its inputs, sum
// contributions as they come.
#include <fmt/format.h>

#include <map>
#include <utility>

#include "ashlar/autodiff.hpp"
#include "ashlar/error.hpp"
#include "ashlar/op.hpp"
#include "ashlar/ops.hpp"

namespace ashlar {
namespace {

/// For each value: does it depend on one of `wrt`?
std::vector<bool> depends_on(const Graph& graph, std::span<const Value> wrt) {
  std::vector<bool> depends(graph.values.size(), false);
  for (const Value& value : wrt) depends[static_cast<std::size_t>(value.id())] = true;
  for (const Node& node : graph.nodes) {
    bool any = false;
    for (const ValueId id : node.inputs)
      any = any || (id != kNoValue && depends[static_cast<std::size_t>(id)]);
    if (!any) continue;
    for (const ValueId id : node.outputs) depends[static_cast<std::size_t>(id)] = true;
  }
  return depends;
}

class Reverse {
 public:
  Reverse(Tracer& tracer, std::span<const Value> wrt, std::span<const DType> gradient_dtypes)
      : tracer_(tracer),
        depends_(depends_on(tracer.graph(), wrt)),
        cotangents_(depends_.size()),
        dtypes_(depends_.size()) {
    for (std::size_t i = 0; i < depends_.size(); ++i)
      dtypes_[i] = tracer.graph().values[i].type.dtype;
    for (std::size_t i = 0; i < gradient_dtypes.size(); ++i)
      dtypes_[index(wrt[i].id())] = gradient_dtypes[i];
  }

  void add(ValueId id, Value cotangent, std::source_location where) {
    if (!cotangent || !depends_[index(id)]) return;
    Value& sum = uses_.contains(id) ? use(id) : cotangents_[index(id)];
    sum = sum ? ashlar::add(sum, cotangent, where) : cotangent;
  }

  Value cotangent(ValueId id) const { return cotangents_[index(id)]; }

  /// From now on contributions to `id` from different runs of a unit are not summed.
  void keep_apart(ValueId id) { uses_[id]; }

  std::vector<Value> uses(ValueId id) const {
    std::vector<Value> values;
    for (const auto& [run, value] : uses_.at(id)) values.push_back(value);
    return values;
  }

  void visit(int node_index) {
    const Node node =
        tracer_.graph()
            .nodes[static_cast<std::size_t>(node_index)];  // by value: the graph grows below
    std::vector<Value> inputs, outputs, cotangents;
    std::vector<DType> dtypes;
    std::unique_ptr<bool[]> needed(new bool[node.inputs.size()]);
    bool flows = false, wanted = false;
    for (const ValueId id : node.outputs) {
      outputs.emplace_back(&tracer_, id);
      cotangents.push_back(cotangents_[index(id)]);
      flows = flows || cotangents.back();
    }
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      inputs.push_back(id == kNoValue ? Value() : Value(&tracer_, id));
      needed[i] = id != kNoValue && depends_[index(id)];
      dtypes.push_back(id == kNoValue ? DType::f32 : dtypes_[index(id)]);
      wanted = wanted || needed[i];
    }
    if (!flows || !wanted) return;
    if (node.op->vjp == nullptr)
      throw InvalidArgument(fmt::format(
          "'{}' is on the path to the gradient but is not differentiable", node.op->name));
    tracer_.set_unit(node.unit);
    if (node.unit >= 0 && node.unit != std::exchange(run_unit_, node.unit)) ++run_;
    const auto results = node.op->vjp({tracer_,
                                       node.attributes,
                                       inputs,
                                       outputs,
                                       cotangents,
                                       {needed.get(), inputs.size()},
                                       dtypes});
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (needed[i]) add(node.inputs[i], results[i], node.where);
    }
  }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  /// The sum of this run's contributions to a value whose uses are kept apart.
  Value& use(ValueId id) {
    auto& all = uses_.at(id);
    if (all.empty() || all.back().first != run_) all.emplace_back(run_, Value());
    return all.back().second;
  }

  Tracer& tracer_;
  int run_unit_ = -1;
  int run_ = 0;  // counts runs of nodes of one unit
  std::map<ValueId, std::vector<std::pair<int, Value>>> uses_;
  std::vector<bool> depends_;
  std::vector<Value> cotangents_;
  std::vector<DType> dtypes_;
};

/// Walks the nodes that exist now, last to first.
void sweep(Tracer& tracer, Reverse& reverse, std::span<const Value> outputs,
           std::span<const Value> cotangents) {
  const int nodes = static_cast<int>(tracer.graph().nodes.size());
  const int unit = tracer.current_unit();
  tracer.set_backward(true);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    reverse.add(outputs[i].id(), cotangents[i], std::source_location::current());
  for (int node = nodes - 1; node >= 0; --node) reverse.visit(node);
  tracer.set_backward(false);
  tracer.set_unit(unit);
}

}  // namespace

std::vector<Value> vjp(Tracer& tracer, std::span<const Value> outputs,
                       std::span<const Value> cotangents, std::span<const Value> wrt,
                       std::span<const DType> gradient_dtypes) {
  Reverse reverse(tracer, wrt, gradient_dtypes);
  sweep(tracer, reverse, outputs, cotangents);
  std::vector<Value> gradients;
  for (const Value& value : wrt) gradients.push_back(reverse.cotangent(value.id()));
  return gradients;
}

std::vector<std::vector<Value>> vjp_by_use(Tracer& tracer, std::span<const Value> outputs,
                                           std::span<const Value> cotangents,
                                           std::span<const Value> wrt,
                                           std::span<const DType> gradient_dtypes) {
  Reverse reverse(tracer, wrt, gradient_dtypes);
  for (const Value& value : wrt) reverse.keep_apart(value.id());
  sweep(tracer, reverse, outputs, cotangents);
  std::vector<std::vector<Value>> gradients;
  for (const Value& value : wrt) gradients.push_back(reverse.uses(value.id()));
  return gradients;
}

}  // namespace ashlar
