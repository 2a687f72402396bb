// Attention as a graph of cuDNN's, built to its plan, with or without a device.
#pragma once

#include <memory>
#include <string>

#include "cuda/attention.hpp"
#include "cuda/cudnn_library.hpp"

namespace ashlar::cuda {

/// A planned call. Lives until the process ends, as captured steps hold its code.
class AttentionGraph {
 public:
  /// For the device of `handle`. @throws CudaError in one line, where cuDNN has no plan.
  AttentionGraph(const CudnnLibrary& library, const AttentionProblem& problem,
                 cudnnHandle_t handle);
  /// For a device that is only described, in cuDNN's JSON; cannot run. @throws likewise.
  AttentionGraph(const CudnnLibrary& library, const AttentionProblem& problem,
                 const std::string& device);
  ~AttentionGraph();
  AttentionGraph(const AttentionGraph&) = delete;
  AttentionGraph& operator=(const AttentionGraph&) = delete;

  /// Bytes that a run needs.
  std::int64_t workspace() const { return workspace_; }
  /// The engine and its knobs, as cuDNN names them.
  const std::string& engine() const { return engine_; }

  /// Enqueues on the handle's stream. @throws CudaError.
  void run(cudnnHandle_t handle, const AttentionOperands& operands, std::byte* workspace) const;

 private:
  class Impl;
  void finish();

  AttentionProblem problem_;
  std::unique_ptr<Impl> impl_;
  std::int64_t workspace_ = 0;
  std::string engine_;
};

}  // namespace ashlar::cuda
