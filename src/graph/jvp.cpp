// Forward mode: walk the nodes in order, ask each row for the tangents of its outputs. And the
// rules that most rows share.
#include <algorithm>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "base/floating.hpp"
#include "graph/sweep.hpp"

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// For each value: does one of `outputs` depend on it by these nodes? As derivatives see it.
std::vector<bool> reaches(const Graph& graph, NodeRange nodes, std::span<const Value> outputs) {
  std::vector<bool> reaches(graph.values.size(), false);
  for (const Value& value : outputs) {
    if (value) reaches[index(value.id())] = true;
  }
  for (int n = nodes.last - 1; n >= nodes.first; --n) {
    const Node& node = graph.nodes[index(n)];
    if (node.op->stops_derivatives) continue;
    const bool any = std::any_of(node.outputs.begin(), node.outputs.end(),
                                 [&](ValueId id) { return reaches[index(id)]; });
    if (!any) continue;
    for (const ValueId id : node.inputs) {
      if (id != kNoValue) reaches[index(id)] = true;
    }
  }
  return reaches;
}

Value plus(Value a, Value b) { return a && b ? add(a, b) : a ? a : b; }

class Forward {
 public:
  Forward(Tracer& tracer, NodeRange nodes, std::span<const Value> outputs)
      : tracer_(tracer),
        nodes_(nodes),
        reaches_(reaches(tracer.graph(), nodes, outputs)),
        tangents_(reaches_.size()) {}

  void sweep(std::span<const Value> wrt, std::span<const Value> tangents) {
    check_types(wrt, tangents, "tangent");
    const SweepScope scope(tracer_);
    for (std::size_t i = 0; i < wrt.size(); ++i) add(wrt[i].id(), tangents[i]);
    for (int node = nodes_.first; node < nodes_.last; ++node) visit(node);
  }

  Value tangent(Value value) const { return value ? tangents_[index(value.id())] : Value(); }

 private:
  void add(ValueId id, Value tangent) {
    tangents_[index(id)] = plus(tangents_[index(id)], tangent);
  }

  void visit(int node_index) {
    const Node node = tracer_.graph().nodes[index(node_index)];  // a copy: the graph grows below
    std::vector<Value> tangents;
    for (const ValueId id : node.inputs)
      tangents.push_back(id == kNoValue ? Value() : tangents_[index(id)]);
    const auto reached = [&](ValueId id) { return reaches_[index(id)]; };
    if (std::none_of(tangents.begin(), tangents.end(), [](Value v) { return bool(v); }) ||
        std::none_of(node.outputs.begin(), node.outputs.end(), reached) ||
        node.op->stops_derivatives)
      return;
    tracer_.set_unit(node.unit);
    const auto results = node.op->jvp != nullptr ? by_rule(node, tangents) : by_expansion(node);
    for (std::size_t i = 0; i < results.size(); ++i) add(node.outputs[i], results[i]);
  }

  std::vector<Value> by_rule(const Node& node, std::span<const Value> tangents) {
    return node.op->jvp({*node.op, tracer_, node.attributes, handles(tracer_, node.inputs),
                         handles(tracer_, node.outputs), tangents});
  }

  std::vector<Value> by_expansion(const Node& node) {
    const Expansion expansion = expand(tracer_, node);
    std::vector<ValueId> ids = node.inputs;
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    std::erase(ids, kNoValue);
    std::vector<Value> tangents;
    for (const ValueId id : ids) tangents.push_back(tangents_[index(id)]);
    return forward_sweep(tracer_, expansion.nodes, expansion.outputs, handles(tracer_, ids),
                         tangents);
  }

  Tracer& tracer_;
  NodeRange nodes_;
  std::vector<bool> reaches_;
  std::vector<Value> tangents_;
};

bool is_float(Value value) { return value && ashlar::is_float(value.dtype()); }

/// The row's vjp for one cotangent of output 0, by the inputs that have tangents.
std::vector<Value> gradients(const JvpArguments& a, Value cotangent) {
  const std::unique_ptr<bool[]> needed(new bool[a.inputs.size()]);
  std::vector<DType> dtypes;
  for (std::size_t i = 0; i < a.inputs.size(); ++i) {
    needed[i] = bool(a.tangents[i]);
    dtypes.push_back(a.inputs[i] ? a.inputs[i].dtype() : DType::f32);
  }
  std::vector<Value> cotangents(a.outputs.size());
  cotangents[0] = cotangent;
  return a.op.vjp({a.tracer,
                   a.attributes,
                   a.inputs,
                   a.outputs,
                   cotangents,
                   {needed.get(), a.inputs.size()},
                   dtypes});
}

}  // namespace

std::vector<Value> forward_sweep(Tracer& tracer, NodeRange nodes, std::span<const Value> outputs,
                                 std::span<const Value> wrt, std::span<const Value> tangents) {
  Forward forward(tracer, nodes, outputs);
  forward.sweep(wrt, tangents);
  std::vector<Value> results;
  for (const Value& value : outputs) results.push_back(forward.tangent(value));
  return results;
}

std::vector<Value> jvp(Tracer& tracer, std::span<const Value> outputs, std::span<const Value> wrt,
                       std::span<const Value> tangents) {
  return forward_sweep(tracer, nodes_since(tracer), outputs, wrt, tangents);
}

std::vector<Value> linear_jvp(const JvpArguments& a) {
  std::vector<Value> inputs(a.inputs.begin(), a.inputs.end());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!is_float(inputs[i])) continue;
    const TensorType type = inputs[i].type();
    inputs[i] = a.tangents[i] ? a.tangents[i] : constant(a.tracer, 0, type.dtype, type.shape);
  }
  return a.tracer.apply(a.op, inputs, a.attributes);
}

std::vector<Value> multilinear_jvp(const JvpArguments& a) {
  Value tangent;
  for (std::size_t i = 0; i < a.inputs.size(); ++i) {
    if (!a.tangents[i]) continue;
    std::vector<Value> inputs(a.inputs.begin(), a.inputs.end());
    inputs[i] = a.tangents[i];
    tangent = plus(tangent, a.tracer.apply(a.op, inputs, a.attributes)[0]);
  }
  return {tangent};
}

std::vector<Value> symmetric_jvp(const JvpArguments& a) {
  Value tangent;
  for (std::size_t i = 0; i < a.inputs.size(); ++i) {
    if (!a.tangents[i]) continue;
    std::vector<Value> only(a.inputs.size());
    only[i] = a.tangents[i];
    JvpArguments one = a;
    one.tangents = only;
    tangent = plus(tangent, gradients(one, a.tangents[i])[i]);
  }
  return {tangent};
}

std::vector<Value> scalar_jvp(const JvpArguments& a) {
  const DType dtype = a.outputs[0].dtype();
  const Shape shape = a.outputs[0].shape();
  const std::vector<Value> by_input = gradients(a, constant(a.tracer, 1, dtype, shape));
  std::vector<Value> tangents(a.outputs.size());
  for (std::size_t i = 0; i < a.inputs.size(); ++i) {
    if (!a.tangents[i]) continue;
    const Value product = multiply(cast(by_input[i], dtype), cast(a.tangents[i], dtype));
    tangents[0] = plus(tangents[0], sum(product));
  }
  return tangents;
}

}  // namespace ashlar
