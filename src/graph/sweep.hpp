// The two sweeps of automatic differentiation over a run of nodes. A row's own rule comes first;
// without one the row is expanded into rows that have rules, and the sweep goes over those.
#pragma once

#include "ashlar/autodiff.hpp"
#include "ashlar/op.hpp"

namespace ashlar {

/// Nodes [first, last) of a graph.
struct NodeRange {
  int first = 0;
  int last = 0;
};

/// All nodes that `tracer` has now.
inline NodeRange nodes_since(const Tracer& tracer, int first = 0) {
  return {first, static_cast<int>(tracer.graph().nodes.size())};
}

/// vjp and jvp over these nodes alone: what comes before them is constant.
std::vector<Value> reverse_sweep(Tracer& tracer, NodeRange nodes, std::span<const Value> outputs,
                                 std::span<const Value> cotangents, std::span<const Value> wrt,
                                 std::span<const DType> gradient_dtypes = {});
std::vector<Value> forward_sweep(Tracer& tracer, NodeRange nodes, std::span<const Value> outputs,
                                 std::span<const Value> wrt, std::span<const Value> tangents);

/// A node's outputs made of other rows, and the nodes that this took.
struct Expansion {
  NodeRange nodes;
  std::vector<Value> outputs;
};
/// @throws InvalidArgument when the row has no expansion, with the row's reason.
Expansion expand(Tracer& tracer, const Node& node);

/// @throws InvalidArgument unless there is one of `given` per value, empty or of the value's type.
void check_types(std::span<const Value> values, std::span<const Value> given, const char* what);

/// Puts a tracer's unit and direction back when a sweep ends, by a throw too.
class SweepScope {
 public:
  explicit SweepScope(Tracer& tracer)
      : tracer_(tracer), unit_(tracer.current_unit()), backward_(tracer.backward()) {}
  ~SweepScope() {
    tracer_.set_unit(unit_);
    tracer_.set_backward(backward_);
  }
  SweepScope(const SweepScope&) = delete;
  SweepScope& operator=(const SweepScope&) = delete;

 private:
  Tracer& tracer_;
  int unit_;
  bool backward_;
};

/// Handles of a node's inputs or outputs.
std::vector<Value> handles(Tracer& tracer, std::span<const ValueId> ids);

}  // namespace ashlar
