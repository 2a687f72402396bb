// The front door for models traced by Ashlar: model code in, a compiled and sharded training step
// out.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ashlar/communicator.hpp"
#include "ashlar/graph.hpp"
#include "ashlar/optimizer.hpp"
#include "ashlar/sharding.hpp"

namespace ashlar {

class TraceWriter;

/// When gradients travel: after each micro-batch, or once after the last. automatic: each at stages
/// 2 and 3, else last.
enum class ReduceWhen : std::uint8_t { automatic, each, last };

/// Which way a step's micro-batches go through the model. micro_batches: each forward and backward
/// before the next. layers: all through one unit before the next, backward likewise; at stage 3 a
/// unit is then gathered twice and reduced once for any number of micro-batches, and no rank keeps
/// whole gradients, but what enters each unit is kept for all of them (docs/zero.md). Same bits as
/// micro_batches with ReduceWhen::last.
enum class MicroBatchOrder : std::uint8_t { micro_batches, layers };

/// What backward makes again instead of keeping it; the bits of all results stay the same.
/// automatic: budget where there is one, else cheap, or per_unit with MicroBatchOrder::layers,
/// which keeps K times as much; cheap: what a few element-wise passes restore (normalised
/// activations, gelu); selective: also what attention makes; per_unit: all that lies inside a unit;
/// budget: what costs the fewest operations among what fits TrainConfig::memory_budget.
enum class Recompute : std::uint8_t { automatic, none, cheap, selective, per_unit, budget };

struct TrainConfig {
  ZeroConfig zero = {};
  PrecisionPolicy precision = {};
  OptimizerConfig optimizer = AdamW{};
  Schedule schedule = {};          // the learning rate; the optimizer's own lr is not used
  double clip = 0;                 // of the global gradient norm; 0: off
  std::int64_t micro_batches = 1;  // K, accumulated per step
  ReduceWhen reduce = ReduceWhen::automatic;
  MicroBatchOrder order = MicroBatchOrder::micro_batches;
  Recompute recompute = Recompute::automatic;
  std::int64_t memory_budget = 0;  // bytes per rank, all arenas together; 0: none
  std::uint64_t seed = 0;          // of initial values and dropout
  std::int64_t samples = 1;        // per rank and micro-batch: the first axis of the data inputs
  int threads = 1;                 // of this rank
  bool poison = false;  // fill dead transients with NaN patterns (always on in debug builds)
  /// Where this rank's kernels run: a GPU, or the CPU. All ranks name the same type. Collectives of
  /// GPUs go as device_communicator() says, unless the step's communicator is one for GPUs already.
  Device device = {};
  /// Off: on a GPU the gradients of attention may be added in any order, which is quicker; runs
  /// then differ in bits. The CPU's kernels are always deterministic.
  bool deterministic = true;
  /// Of all that peers do not read (that comes from the communicator's window); outlives the step.
  /// host_memory() stands for the device's own.
  MemoryResource* memory = &host_memory();
  /// Records every state once, and each buffer of each step as it comes into use and goes, at its
  /// planned address: stream 1 for what collectives write, else 0. Outlives the step; null: off.
  TraceWriter* allocation_trace = nullptr;
};

/// Data inputs by name, this rank's: the loader writes them.
using Batch = std::map<std::string, TensorView>;
using Loader = std::function<void(std::int64_t micro_batch, const Batch& batch)>;

/// Traces a model: declares inputs and parameters, returns the loss (a scalar, the mean over this
/// rank's samples).
using LossModel = std::function<Value(Tracer&)>;
/// Traces something else over the same parameters (evaluation, sampling): declares inputs and
/// outputs.
using ForwardModel = std::function<void(Tracer&)>;

/// Bytes of one run. `total` = state and transient arenas; each category's own maximum in `peak`;
/// `at_peak` is the instant of the largest load and, with `fragmentation` and `padding`, sums to
/// total.
struct MemoryUse {
  PerCategory<std::int64_t> peak{};
  PerCategory<std::int64_t> at_peak{};
  std::int64_t fragmentation = 0;
  std::int64_t padding = 0;
  std::int64_t total = 0;
};

struct StepResult {
  float loss = 0;        // mean over the global batch
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  double seconds_forward = 0, seconds_backward = 0, seconds_update = 0, seconds_exposed = 0;
  double flops = 0;       // of this rank's kernels, counted as they were called
  MemoryUse memory;       // counted while the step ran
  bool replayed = false;  // on a GPU: all of it from CUDA graphs that an earlier step recorded
};

/// What the products and the attention of a step were computed by on a GPU, where libraries choose
/// algorithms for them; both empty elsewhere. Runs that differ in it may differ in bits: part of
/// what a checkpoint is to remember.
struct LibraryChoices {
  std::string device;  // its kind: "sm_90"
  std::string hash;    // of the libraries' versions and all algorithms, 16 digits
  bool operator==(const LibraryChoices&) const = default;
};

/// A compiled step and its state. Collective: every rank of the communicator constructs it and
/// calls its members alike. Deterministic: equal (model, config, ranks) give equal bits at every
/// stage, prefetch, bucket size and transport (one ZeroConfig::group rounds unlike another).
class TrainStep {
 public:
  /// Traces, differentiates, shards, schedules, plans, allocates and initialises; then the ranks
  /// compare their programs, and on GPUs take rank 0's choice of algorithms for products and
  /// compare what serves attention. With MicroBatchOrder::layers the loader fills the inputs of all
  /// micro-batches before the step runs.
  /// @throws InvalidArgument on every rank when they differ, for a group that does not divide the
  /// ranks, for MicroBatchOrder::layers with ReduceWhen::each, for a memory budget that cannot be
  /// met or that `recompute` would not look at, for an op without a kernel on the device, for GPUs,
  /// libraries of products or plans of attention that differ between ranks; OutOfMemory naming the
  /// largest holders; CudaError where the device does not work.
  TrainStep(Communicator& communicator, const LossModel& model, const TrainConfig& config,
            const std::vector<ForwardModel>& forwards = {});
  /// The same with the step's parts shown as they are made, for tests and tools
  /// (sharding/train_step_parts.hpp).
  struct Hooks;
  TrainStep(Communicator& communicator, const LossModel& model, const TrainConfig& config,
            const std::vector<ForwardModel>& forwards, const Hooks& hooks);
  ~TrainStep();
  TrainStep(TrainStep&&) noexcept;

  /// One step: K micro-batches through `load`, reduction, update.
  /// @throws CommunicationError; what `load` throws here (other ranks: a CommunicationError). The
  /// state is then undefined.
  StepResult step(const Loader& load);
  /// Runs forward model `index` of the constructor. @return its outputs ("loss": mean over ranks),
  /// valid until the next run.
  const Batch& forward(int index, const Loader& load);

  /// Steps taken.
  std::int64_t steps() const;
  void set_steps(std::int64_t steps);

  const FlatLayout& layout() const;
  /// What a checkpoint holds of this rank, in layout order; rank r's are shards r mod
  /// layout().ranks(). Valid until the next step.
  std::vector<ShardView> shards() const;
  /// After shards() were written from outside: rebuilds whatever is kept whole or rounded from
  /// them. Collective.
  void restore_from_shards();
  /// Replaces all parameters. Collective; every rank asks for the parts that it owns.
  void load_parameters(const ParameterSource& source);
  /// Copies one whole parameter as f32 to `values` on rank 0 (empty view on the others).
  /// Collective.
  void read_parameter(int parameter, TensorView values);

  /// Model state as allocated: parameter, gradient and optimizer_state bytes of this rank (with
  /// layout padding).
  PerCategory<std::int64_t> state_bytes() const;
  /// All that this rank's step takes from its memory resources, and the part of it in the
  /// communicator's window.
  std::int64_t allocated_bytes() const;
  std::int64_t window_bytes() const;
  /// What the communicator has sent, and those that the step made of it where ZeroConfig::group is
  /// smaller than the world.
  SentBytes sent_bytes() const;
  /// The plan's prediction for the step.
  MemoryUse planned() const;
  /// What libraries compute of the step, equal on all ranks.
  LibraryChoices library_choices() const;
  /// First parameter whose gradient is not finite, for messages; -1 if all are. Collective.
  int first_bad_parameter() const;

  /// The program as text, one line per instruction.
  std::vector<std::string> program() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace ashlar
