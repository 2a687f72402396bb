// The front door for models that Ashlar did not trace: register parameters and gradients, call
// step().
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/category.hpp"
#include "ashlar/communicator.hpp"
#include "ashlar/memory_resource.hpp"
#include "ashlar/optimizer.hpp"
#include "ashlar/sharding.hpp"

namespace ashlar {

struct DeviceKernel;  // ashlar/op.hpp

/// What a registration says beyond name, memory and shape.
struct ParameterOptions {
  std::string unit = {};  // what is gathered and reduced together; empty: grouped with neighbours
  bool trainable = true;  // frozen parameters have neither gradient nor optimizer state
  bool decay = true;      // weight decay applies
  Initializer initial = {};  // of parameters that the optimizer allocates
};

/// The parameters of a model, in the order of its forward pass: all in memory of the caller, or all
/// in memory of the optimizer. Every rank registers the same.
/// Errors: InvalidArgument naming the parameter, for a name or memory that is registered twice, a
/// null pointer, or a type other than f32, bf16 and f16.
class ParameterList {
 public:
  struct Entry {
    Parameter parameter;  // its unit is not resolved yet
    std::string unit;
    TensorView values;     // the caller's, or none
    TensorView gradients;  // the caller's, or none
    bool owned = false;    // by the optimizer
  };

  /// Memory of the caller, contiguous, that stays where it is while the optimizer lives; for stages
  /// 0 to 2. Tied weights are registered once.
  /// @param gradients of `dtype`; null when frozen, or when grad_ready will bring them
  void add(std::string name, void* values, void* gradients, const Shape& shape, DType dtype,
           const ParameterOptions& options = {});
  /// The same; gradients may be of another floating type than the values, or empty.
  void add(std::string name, const TensorView& values, const TensorView& gradients,
           const ParameterOptions& options = {});
  /// Memory that the optimizer owns, for any stage: see ShardedOptimizer::values and gradient.
  void allocate(std::string name, const Shape& shape, DType dtype,
                const ParameterOptions& options = {});

  std::span<const Entry> entries() const { return entries_; }

 private:
  void require_new(std::string_view name) const;
  void push(std::string name, const Shape& shape, DType dtype, const ParameterOptions& options);

  std::vector<Entry> entries_;
};

/// A factor on the loss that keeps small f16 gradients from vanishing: halved when a gradient
/// overflows (that step is skipped), doubled after `growth_interval` steps without one
/// (Micikevicius et al., arXiv:1710.03740, section 3.2).
struct LossScale {
  double initial = 65536;
  std::int64_t growth_interval = 2000;
};

struct ShardedOptions {
  int stage = 1;  // 0: nothing is sharded, 1: optimizer state, 2: + gradients, 3: + parameters
  std::int64_t bucket_bytes = 25 << 20;   // gradients travel in runs of whole units of this size
  int prefetch = 1;                       // units gathered ahead at stage 3
  bool overlap = true;                    // off: nothing travels beside the model's own work
  double clip = 0;                        // of the global gradient norm; 0: off
  std::optional<DType> reduce = {};       // the wire type of gradients; unset: their own
  std::optional<Schedule> schedule = {};  // of the learning rate; unset: the rule's, or set_lr's
  std::optional<LossScale> loss_scale = {};
  bool sync = true;             // take over rank 0's values; off: throw if they differ
  std::uint64_t seed = 0;       // of the values of allocated parameters
  ParameterSource source = {};  // of those values instead of ParameterOptions::initial
  /// Ranks that hold equal shards, by a communicator of the same kind: gradients are summed over
  /// both.
  Communicator* replicas = nullptr;
  int threads = 1;  // of this rank's updates
  /// At stage 3: a parameter that is touched after its lease ends the program and is named on
  /// stderr. Gathered units then have pages of their own. Always on in debug builds. Not for
  /// memory of a device: it is the host's accesses to its own pages that are caught.
  bool guard = false;
  MemoryResource* memory = &host_memory();
  /// Of the device that all registered memory, `memory` and the communicator's window lie on
  /// (device_communicator.hpp): what is done to them goes there, in order. A gradient is written by
  /// work that is enqueued there, or ordered before what is, when it is reported; views that are
  /// handed out are for work enqueued afterwards. The host waits in step() for the norm, in
  /// grad_ready where two buckets travel already, and in the constructor, read, save and load,
  /// which copy states to the host. Without guard and f16 that has to be converted.
  StreamRef stream = {};
  /// Kernels for that stream by the op's name; null: CUDA's.
  const DeviceKernel* (*find_kernel)(std::string_view op) = nullptr;
};

struct UpdateResult {
  /// False: a gradient was not finite, nothing has changed. Without clip and loss_scale nobody
  /// looks, as in a plain loop.
  bool applied = true;
  double grad_norm = 0;  // of the mean gradient, before clipping
  double learning_rate = 0;
};

struct ReadOptions {
  bool everywhere = false;  // on all ranks, else on rank 0 alone
  bool average = false;     // the exponential moving average (AdamW::ema) instead of the value
};

/// Shards optimizer state (stage 1), gradients (2) and parameters (3) of a model over the ranks of
/// a communicator (ZeRO, Rajbhandari et al., arXiv:1910.02054). Collective: every rank constructs
/// it and calls step, gather, read, save and load alike; calls come from one thread. Deterministic:
/// equal values, gradients and ranks give equal bits at every stage, bucket size and transport.
///
/// Gradients are averaged over ranks and micro-batches. A parameter whose gradient did not come
/// counts as zero. At stages 0 and 1 the caller's gradient memory holds the summed gradient after
/// step() (its own shard of it at stage 1) until the caller overwrites it; at stage 2 too, where
/// that memory is the caller's: what stage 2 saves there is nothing, `allocate` saves it.
class ShardedOptimizer {
  struct Implementation;

 public:
  /// @throws InvalidArgument on every rank, naming the first parameter or setting that differs
  /// between them or does not fit; OutOfMemory.
  ShardedOptimizer(const ParameterList& parameters, Communicator& communicator,
                   const OptimizerConfig& optimizer, const ShardedOptions& options = {});
  ~ShardedOptimizer();
  ShardedOptimizer(ShardedOptimizer&&) noexcept;

  /// The gradient of a parameter is complete: its unit may travel beside what is left of backward.
  /// Optional where the gradient lies in memory known from registration.
  /// Waits for ranks that are late, half a second at most where two buckets travel already.
  /// @throws InvalidArgument for a parameter that is unknown, frozen, or reported twice in a step,
  /// and when its gradient's memory is unknown.
  void grad_ready(std::string_view parameter);
  /// The same for a gradient that lies elsewhere; its memory is free again on return.
  /// @throws InvalidArgument also for another shape.
  void grad_ready(std::string_view parameter, const TensorView& gradient);
  /// Reduces what has not travelled yet, clips, updates the own shards, gathers what is kept whole.
  /// @throws InvalidArgument when no rank has reported or touched any gradient, while a lease is
  /// held, and at stage 3 naming the unit where ranks gathered in different orders;
  /// CommunicationError, after which the state is undefined.
  UpdateResult step();
  /// Fills gradients with zeros; a step does not.
  void zero_grad();

  /// While it lives, gradients only accumulate: one micro-batch of several.
  class [[nodiscard]] NoSync {
   public:
    ~NoSync();
    NoSync(const NoSync&) = delete;
    NoSync& operator=(const NoSync&) = delete;

   private:
    friend class ShardedOptimizer;
    explicit NoSync(Implementation& optimizer);
    Implementation& optimizer_;
  };
  /// grad_ready means nothing until the guard goes; then the next micro-batch begins.
  NoSync no_sync();
  /// Whether grad_ready counts: no guard lives.
  bool syncing() const;

  /// Keeps a unit's parameters whole while it lives; outlives no optimizer.
  class [[nodiscard]] Lease {
   public:
    ~Lease();
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&&) = delete;
    /// The unit's parameter, valid while the lease lives. @throws InvalidArgument.
    TensorView operator[](std::string_view parameter) const;
    const std::string& unit() const;

   private:
    friend class ShardedOptimizer;
    Lease(Implementation& optimizer, int unit) : optimizer_(&optimizer), unit_(unit) {}
    Implementation* optimizer_;
    int unit_;
  };
  /// Makes a unit's parameters whole: a collective at stage 3, nothing below. From the second time
  /// on, the unit that followed last time is fetched ahead.
  /// @throws InvalidArgument for an unknown unit; CommunicationError naming the units when ranks
  /// gather different ones.
  Lease gather(std::string_view unit);
  /// A parameter's memory: the caller's or the optimizer's. @throws InvalidArgument at stage 3
  /// outside of a lease.
  TensorView values(std::string_view parameter) const;
  /// Where an allocated parameter's gradient is to be added to: zeros at first in each step, and at
  /// stages 2 and 3 valid until it is reported. @throws InvalidArgument after that.
  TensorView gradient(std::string_view parameter);

  /// Copies a whole parameter as f32, the master where there is one; ranks that get nothing pass an
  /// empty view. Collective. @throws InvalidArgument for memory of another size, and for an average
  /// that is not kept.
  void read(std::string_view parameter, const TensorView& values,
            const ReadOptions& options = {}) const;

  double lr() const;
  /// The rate of later steps; with a schedule: what it starts from.
  void set_lr(double rate);
  /// What the last step() said.
  double grad_norm() const;
  /// What to multiply the loss by; 1 without ShardedOptions::loss_scale.
  double loss_scale() const;
  /// Steps applied.
  std::int64_t steps() const;

  /// Checkpoints as TrainStep's (checkpoint.hpp): either door loads what the other saved.
  /// @param counters a JSON object of the caller's; "step" and "loss_scale" are added
  void save(const std::filesystem::path& directory, std::string_view counters = "{}") const;
  /// @return the counters.
  std::string load(const std::filesystem::path& directory);

  const FlatLayout& layout() const;
  /// Model state of this rank with layout padding, the caller's memory included; at stages 0 and 1
  /// also gradients that grad_ready brings from elsewhere, which stay whole there.
  PerCategory<std::int64_t> state_bytes() const;
  /// The same of one rank that shards nothing.
  PerCategory<std::int64_t> unsharded_bytes() const;
  /// "model state 1.25 MiB per rank, 2.00 MiB unsharded (38 % saved)", and what stage 2 leaves
  /// whole.
  std::string summary() const;
  /// What the communicator has sent, and what travels beside the model: with
  /// ShardedOptions::overlap that has a communicator of its own.
  SentBytes sent_bytes() const;
  /// The largest sum of buckets and gathered units that were in use at a time.
  std::int64_t transient_bytes() const;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace ashlar
