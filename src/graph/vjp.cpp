// Reverse mode: walk the nodes backwards, ask each row for the cotangents of its inputs, sum
// contributions as they come.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "graph/sweep.hpp"

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// For each value: does it depend on one of `wrt` by these nodes? As derivatives see it.
std::vector<bool> depends_on(const Graph& graph, NodeRange nodes, std::span<const Value> wrt) {
  std::vector<bool> depends(graph.values.size(), false);
  for (const Value& value : wrt) depends[index(value.id())] = true;
  for (int n = nodes.first; n < nodes.last; ++n) {
    const Node& node = graph.nodes[index(n)];
    if (node.op->stops_derivatives) continue;
    const bool any = std::any_of(node.inputs.begin(), node.inputs.end(),
                                 [&](ValueId id) { return id != kNoValue && depends[index(id)]; });
    if (!any) continue;
    for (const ValueId id : node.outputs) depends[index(id)] = true;
  }
  return depends;
}

class Reverse {
 public:
  Reverse(Tracer& tracer, NodeRange nodes, std::span<const Value> wrt,
          std::span<const DType> gradient_dtypes)
      : tracer_(tracer),
        nodes_(nodes),
        depends_(depends_on(tracer.graph(), nodes, wrt)),
        cotangents_(depends_.size()),
        dtypes_(depends_.size()) {
    for (std::size_t i = 0; i < depends_.size(); ++i)
      dtypes_[i] = tracer.graph().values[i].type.dtype;
    for (std::size_t i = 0; i < gradient_dtypes.size(); ++i)
      dtypes_[index(wrt[i].id())] = gradient_dtypes[i];
  }

  /// From now on contributions to `id` from different runs of a unit are not summed.
  void keep_apart(ValueId id) { uses_[id]; }

  void sweep(std::span<const Value> outputs, std::span<const Value> cotangents) {
    check_types(outputs, cotangents, "cotangent");
    const SweepScope scope(tracer_);
    tracer_.set_backward(true);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (cotangents[i])
        add(outputs[i].id(), cast(cotangents[i], dtypes_[index(outputs[i].id())]), {});
    }
    for (int node = nodes_.last - 1; node >= nodes_.first; --node) visit(node);
  }

  Value cotangent(ValueId id) const { return cotangents_[index(id)]; }

  std::vector<Value> uses(ValueId id) const {
    std::vector<Value> values;
    for (const auto& [run, value] : uses_.at(id)) values.push_back(value);
    return values;
  }

 private:
  void add(ValueId id, Value cotangent, std::source_location where) {
    if (!cotangent || !depends_[index(id)]) return;
    Value& sum = uses_.contains(id) ? use(id) : cotangents_[index(id)];
    sum = sum ? ashlar::add(sum, cotangent, where) : cotangent;
  }

  /// The sum of this run's contributions to a value whose uses are kept apart.
  Value& use(ValueId id) {
    auto& all = uses_.at(id);
    if (all.empty() || all.back().first != run_) all.emplace_back(run_, Value());
    return all.back().second;
  }

  void visit(int node_index) {
    const Node node = tracer_.graph().nodes[index(node_index)];  // a copy: the graph grows below
    std::vector<Value> cotangents;
    for (const ValueId id : node.outputs) cotangents.push_back(cotangents_[index(id)]);
    const auto wanted = [&](ValueId id) { return id != kNoValue && depends_[index(id)]; };
    if (std::none_of(cotangents.begin(), cotangents.end(), [](Value v) { return bool(v); }) ||
        std::none_of(node.inputs.begin(), node.inputs.end(), wanted))
      return;
    tracer_.set_unit(node.unit);
    if (node.unit >= 0 && node.unit != std::exchange(run_unit_, node.unit)) ++run_;
    if (node.op->vjp != nullptr) {
      by_rule(node, cotangents);
    } else {
      by_expansion(node, cotangents);
    }
  }

  void by_rule(const Node& node, std::span<const Value> cotangents) {
    const std::unique_ptr<bool[]> needed(new bool[node.inputs.size()]);
    std::vector<DType> dtypes;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      needed[i] = id != kNoValue && depends_[index(id)];
      dtypes.push_back(id == kNoValue ? DType::f32 : dtypes_[index(id)]);
    }
    const auto results = node.op->vjp({tracer_,
                                       node.attributes,
                                       handles(tracer_, node.inputs),
                                       handles(tracer_, node.outputs),
                                       cotangents,
                                       {needed.get(), node.inputs.size()},
                                       dtypes});
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (needed[i]) add(node.inputs[i], results[i], node.where);
    }
  }

  void by_expansion(const Node& node, std::vector<Value> cotangents) {
    Expansion expansion = expand(tracer_, node);
    for (std::size_t i = 0; i < cotangents.size(); ++i) {
      if (expansion.outputs[i]) continue;
      if (cotangents[i]) {
        throw InvalidArgument(fmt::format("output {} of '{}' is a residual and not differentiable",
                                          i, node.op->name));
      }
      expansion.outputs[i] = Value(&tracer_, node.outputs[i]);
    }
    std::vector<Value> wrt;
    std::vector<DType> dtypes;
    for (const ValueId id : node.inputs) {
      const bool seen = std::any_of(wrt.begin(), wrt.end(), [&](Value v) { return v.id() == id; });
      if (id == kNoValue || !depends_[index(id)] || seen) continue;
      wrt.emplace_back(&tracer_, id);
      dtypes.push_back(dtypes_[index(id)]);
    }
    const auto results =
        reverse_sweep(tracer_, expansion.nodes, expansion.outputs, cotangents, wrt, dtypes);
    for (std::size_t i = 0; i < wrt.size(); ++i) add(wrt[i].id(), results[i], node.where);
  }

  Tracer& tracer_;
  NodeRange nodes_;
  int run_unit_ = -1;
  int run_ = 0;  // counts runs of nodes of one unit
  std::map<ValueId, std::vector<std::pair<int, Value>>> uses_;
  std::vector<bool> depends_;
  std::vector<Value> cotangents_;
  std::vector<DType> dtypes_;
};

}  // namespace

std::vector<Value> reverse_sweep(Tracer& tracer, NodeRange nodes, std::span<const Value> outputs,
                                 std::span<const Value> cotangents, std::span<const Value> wrt,
                                 std::span<const DType> gradient_dtypes) {
  Reverse reverse(tracer, nodes, wrt, gradient_dtypes);
  reverse.sweep(outputs, cotangents);
  std::vector<Value> gradients;
  for (const Value& value : wrt) gradients.push_back(reverse.cotangent(value.id()));
  return gradients;
}

std::vector<Value> vjp(Tracer& tracer, std::span<const Value> outputs,
                       std::span<const Value> cotangents, std::span<const Value> wrt,
                       std::span<const DType> gradient_dtypes) {
  return reverse_sweep(tracer, nodes_since(tracer), outputs, cotangents, wrt, gradient_dtypes);
}

std::vector<std::vector<Value>> vjp_by_use(Tracer& tracer, std::span<const Value> outputs,
                                           std::span<const Value> cotangents,
                                           std::span<const Value> wrt,
                                           std::span<const DType> gradient_dtypes) {
  Reverse reverse(tracer, nodes_since(tracer), wrt, gradient_dtypes);
  for (const Value& value : wrt) reverse.keep_apart(value.id());
  reverse.sweep(outputs, cotangents);
  std::vector<std::vector<Value>> gradients;
  for (const Value& value : wrt) gradients.push_back(reverse.uses(value.id()));
  return gradients;
}

}  // namespace ashlar
