// A function and its backward in one graph, and a run of it that stands at the pause.
#pragma once

#include "ashlar/pullback.hpp"
#include "graph/evaluation.hpp"

namespace ashlar {

/// Nodes [0, pause) are forward, the rest backward. Cotangents and gradients are kNoValue where the
/// output or input has no floating-point type.
struct ForwardBackward::Program {
  Graph graph;
  int pause = 0;
  std::vector<ValueId> inputs, outputs, cotangents, gradients;
  std::vector<bool> by_cotangent;                  // by node: it depends on a cotangent
  std::vector<std::shared_ptr<const void>> plans;  // by node
  Backend backend;
};

/// @throws InvalidArgument when f declares inputs of its own.
ForwardBackward::Program differentiate(const Function& f, std::span<const TensorType> inputs);

/// What lives through the pause.
std::vector<Residual> saved_residuals(const ForwardBackward::Program& program);

/// Forward has run.
class PausedRun {
 public:
  PausedRun(std::shared_ptr<const ForwardBackward::Program> program, Evaluation evaluation,
            const RunOptions& options)
      : program_(std::move(program)), evaluation_(std::move(evaluation)), options_(options) {}

  /// Runs backward on what was left of forward, or on copies of it.
  std::vector<Tensor> finish(std::vector<Tensor> cotangents) &&;
  std::vector<std::vector<Tensor>> run(std::vector<std::vector<Tensor>> cotangents) const;

 private:
  void bind(Evaluation& evaluation, std::vector<Tensor> cotangents) const;
  std::vector<Tensor> gradients(Evaluation& evaluation) const;

  std::shared_ptr<const ForwardBackward::Program> program_;
  Evaluation evaluation_;
  RunOptions options_;
};

}  // namespace ashlar
