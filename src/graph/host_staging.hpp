// What a Program on a device exchanges with the host: data inputs, outputs and the numbers of a
// run, copied in the order of the device's stream.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/op.hpp"
#include "graph/program.hpp"

namespace ashlar {

/// Where an Executor's kernels run.
struct ExecutionTarget {
  /// Kernels and copies go here, in order. The inline stream: they run as they are issued.
  StreamRef stream = {};
  /// Host memory that the stream's device copies from and to: pinned, for a GPU. Outlives the
  /// executor.
  MemoryResource* staging = &host_memory();
  /// The second run records what it gives the stream, later ones enqueue that again: as graphs of
  /// CUDA, one for each section and micro-batch, with copies of inputs between them. Only where
  /// collectives are recorded too (Communicator::records).
  bool replays = false;
};

/// Inputs are double-buffered: while the device copies one batch the host fills the next.
class HostStaging {
 public:
  /// @param bind the device's view of an operand
  HostStaging(const Program& program, const std::function<TensorView(const Operand&)>& bind,
              const ExecutionTarget& target);

  /// Batches that there is room for: twice those that one run of the body holds. Micro-batch k has
  /// slot k modulo slots().
  int slots() const { return static_cast<int>(batches_.size()); }
  TensorView input(const std::string& name, int slot) const;
  TensorView output(const std::string& name) const;

  /// Nothing of an earlier run is under way. @return the scalars on the device
  const RunScalars* send(const RunScalars& scalars);
  /// Blocks until the slot's last batch has been copied, so that the host may fill it again.
  void reclaim(int slot);
  void send(int slot);
  /// Outputs are on the host once the stream has passed.
  void fetch();

 private:
  struct Pair {
    Buffer memory;
    TensorView host, device;
  };
  struct Batch {
    std::map<std::string, Pair> inputs;
    Event sent;
  };

  ExecutionTarget target_;
  std::vector<Batch> batches_;  // by slot
  std::map<std::string, Pair> outputs_;
  Buffer scalars_;
  std::byte* scalars_on_device_;
};

}  // namespace ashlar
