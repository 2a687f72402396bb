// Runs a Program: the only caller of kernels and collectives. All views are bound once; a run
// allocates nothing on the CPU. On a device it issues the whole run to a stream, or enqueues what
// an earlier run has recorded, and waits at its end alone.
#pragma once

#include <functional>
#include <optional>

#include "graph/host_staging.hpp"
#include "graph/live_buffers.hpp"
#include "graph/rank_groups.hpp"
#include "graph/stream_clock.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

class ThreadPool;

/// Wall seconds of one run; `exposed` is time that the compute thread spent waiting for
/// collectives. On a device they pass on its stream, and such waits count for the section they are
/// in.
struct RunTimes {
  double forward = 0;
  double backward = 0;
  double update = 0;
  double exposed = 0;
  bool replayed = false;  // all of it was recorded before: nothing was issued anew
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
  /// @param target with a stream, arenas lie in memory of its device and the communicators take
  /// calls on it; the program was compiled with a Backend that finds kernels
  Executor(const Program& program, const PerSpace<std::byte*>& bases, const RankGroups& ranks,
           ThreadPool& pool, const ExecutionTarget& target = {});
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// A data input's or an output's memory on the host. Inputs are written by `load`, outputs are
  /// valid after run().
  /// @param slot of micro-batch k: k modulo input_slots()
  TensorView input(const std::string& name, int slot = 0) const;
  int input_slots() const { return staging_ ? staging_->slots() : program_.micro_batches; }
  TensorView output(const std::string& name) const;

  /// Prologue, body, update. The body runs until it has had all `context.micro_batches`, each time
  /// after load(k) of those that it holds.
  /// @throws CommunicationError, and what kernels and `load` throw; the group is then aborted,
  /// nothing is in flight, and the state is undefined. InvalidArgument where somebody watches
  /// instructions though several ranks replay.
  RunTimes run(const RunContext& context, const std::function<void(std::int64_t)>& load);

  /// Whether the runs of this rank would be recorded. Where ranks communicate all record or none:
  /// who made them asks all before the first run.
  bool would_replay() const { return target_.replays && !watched(); }
  void issue_always() { target_.replays = false; }

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
    void (*run)(const KernelArguments&) = nullptr;
    bool enqueues = false;  // itself, as kernels of devices do
    std::vector<TensorView> inputs, outputs;
    std::vector<ValueId> values;       // of the inputs, then the outputs
    std::shared_ptr<const void> plan;  // OpDef::prepare's
    std::vector<Dying> dying;
  };

  /// A section as the stream has recorded it. What it refers to goes after the graph.
  struct Recording {
    std::vector<Work> collectives;  // in the order of their starts
    std::unique_ptr<detail::RecordingState> graph;
  };

  bool inline_stream() const { return target_.stream.is_inline(); }
  bool watched() const { return on_event || on_load || live_.on_use; }
  RunTimes run_all(RunContext context, const std::function<void(std::int64_t)>& load);
  bool choose_replay(const RunContext& context);
  /// Issues a section, records it or enqueues it again. @param number within the run
  template <typename Issue>
  void section(std::size_t number, const Issue& issue);
  template <typename Issue>
  void record(Recording& recording, const Issue& issue);
  void replay(Recording& recording);
  void load_batch(std::int64_t micro_batch, const std::function<void(std::int64_t)>& load);
  void end_run();
  void settle(const char* reason) noexcept;
  TensorView bind(const Operand& operand) const;
  void run_section(int first, int last, const RunContext& context);
  double* section_of(const Step& step);
  void execute(int i, RunContext context);
  void launch(const Bound& bound, const KernelArguments& arguments) const;
  void finish(Work& work);
  TensorView apart_view(ValueId id, TensorView view) const;
  void bind_apart(Bound& bound);

  const Program& program_;
  PerSpace<std::byte*> bases_;
  RankGroups ranks_;
  ThreadPool& pool_;
  ExecutionTarget target_;
  std::vector<Bound> bound_;             // by step
  std::vector<Work> work_;               // by node
  std::vector<Work> joined_;             // by the stream, so far without an end
  std::vector<std::size_t> sent_after_;  // of joined_, by slot of inputs
  std::optional<HostStaging> staging_;   // none with the inline stream
  LiveBuffers live_;
  StreamClock clock_;
  RunTimes times_;
  double flops_ = 0;
  int runs_ = 0;                       // of these micro-batches
  RunScalars recorded_;                // what is compiled into recordings
  Recording* recording_ = nullptr;     // under way
  std::vector<Recording> recordings_;  // by section
};

}  // namespace ashlar
