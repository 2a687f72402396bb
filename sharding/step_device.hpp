// What a step on a GPU needs beside the step: a stream, memory, kernels, and a communicator for
// buffers on the GPU.
#pragma once

#include <memory>

#include "sharding/train_step_parts.hpp"

namespace ashlar {

class StepDevice {
 public:
  /// Null for the CPU. Collective over `ranks`, which outlives the result.
  /// @throws CudaError on every rank where the device of one does not work.
  static std::unique_ptr<StepDevice> open(Communicator& ranks, const TrainConfig& config);

  const DeviceSide& side() const { return side_; }
  Communicator& ranks() const { return *ranks_; }

 private:
  explicit StepDevice(const TrainConfig& config);
  void connect(Communicator& ranks, Device device);

  Stream stream_;
  DeviceSide side_;
  std::unique_ptr<Communicator> own_ranks_;
  Communicator* ranks_ = nullptr;
};

}  // namespace ashlar
