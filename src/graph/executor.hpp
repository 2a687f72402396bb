// Runs a Program: the only caller of kernels and collectives. All views are bound once; a run
// allocates nothing.
#pragma once

#include <chrono>
#include <functional>

#include "graph/live_buffers.hpp"
#include "graph/rank_groups.hpp"

namespace ashlar {

class ThreadPool;

/// Wall seconds of one run; `exposed` is time that the compute thread spent waiting for
/// collectives.
struct RunTimes {
  double forward = 0;
  double backward = 0;
  double update = 0;
  double exposed = 0;
};

/// One entry of the event log: instruction `step` of the Program was issued (or, for a wait,
/// returned).
struct ExecutorEvent {
  Instruction::Kind kind;
  int node;
  std::int64_t micro_batch;
};

class Executor {
 public:
  /// @param bases of the four arenas; they, the program, the communicators and the pool outlive the
  /// executor. @param ranks the windows are of its shards' communicator
  Executor(const Program& program, const PerSpace<std::byte*>& bases, const RankGroups& ranks,
           ThreadPool& pool);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// A data input's or an output's memory. Inputs are written by `load`, outputs are valid after
  /// run().
  /// @param micro_batch of those that one run of the body holds
  TensorView input(const std::string& name, int micro_batch = 0) const;
  TensorView output(const std::string& name) const;

  /// Prologue, body, update. The body runs until it has had all `context.micro_batches`, each time
  /// after load(k) of those that it holds.
  /// @throws CommunicationError, and what kernels and `load` throw; the group is then aborted,
  /// nothing is in flight, and the state is undefined.
  RunTimes run(const RunContext& context, const std::function<void(std::int64_t)>& load);

  /// What is in use as a run goes, and its peaks.
  LiveBuffers& live() { return live_; }
  const LiveBuffers& live() const { return live_; }
  /// Floating-point operations of the kernels that the last run called, by their rows' cost.
  double flops() const { return flops_; }
  /// Called after each instruction, before what it used last is released.
  std::function<void(int step, const PerCategory<std::int64_t>& in_use)> on_load;
  /// Called as instructions are issued.
  std::function<void(const ExecutorEvent&)> on_event;
  /// Fill transients with NaN patterns at their planned end (default in debug builds).
  bool poison;

 private:
  struct Dying {
    std::byte* data;
    std::int64_t bytes;
    bool carried;  // from the prologue through the body: dies in its last run
  };
  struct Bound {
    Communicator* communicator = nullptr;
    std::vector<TensorView> inputs, outputs;
    std::vector<ValueId> values;       // of the inputs, then the outputs
    std::shared_ptr<const void> plan;  // OpDef::prepare's
    std::vector<Dying> dying;
  };

  RunTimes run_all(RunContext context, const std::function<void(std::int64_t)>& load);
  void settle(const char* reason) noexcept;
  TensorView bind(const Operand& operand) const;
  void run_section(int first, int last, const RunContext& context);
  void execute(int i, RunContext context);
  TensorView apart_view(ValueId id, TensorView view) const;
  void bind_apart(Bound& bound);

  const Program& program_;
  PerSpace<std::byte*> bases_;
  RankGroups ranks_;
  ThreadPool& pool_;
  std::vector<Bound> bound_;  // by step
  std::vector<Work> work_;    // by node
  LiveBuffers live_;
  RunTimes times_;
  double flops_ = 0;
};

}  // namespace ashlar
