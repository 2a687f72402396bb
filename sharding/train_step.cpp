// One training step from a compiled program to numbers: memory, agreement, runs. The passes in
// order are in compile_step.cpp.
#include "ashlar/train_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <sstream>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/caching_resource.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "graph/cost.hpp"
#include "ops/product/machine.hpp"
#include "runtime/stream_state.hpp"
#include "runtime/thread_pool.hpp"
#include "sharding/compile_step.hpp"
#include "sharding/initialize.hpp"
#include "sharding/state_image.hpp"
#include "sharding/step_device.hpp"
#include "sharding/step_memory.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {

struct TrainStep::Implementation : CompiledStep {
  /// Without the other ranks.
  Implementation(Communicator& ranks, const LossModel& model, const TrainConfig& settings,
                 const std::vector<ForwardModel>& forwards, const DeviceSide* device)
      : CompiledStep(compile_step(
            model, settings, ranks.size(),
            device != nullptr ? device->backend : host_backend(settings.threads), forwards)),
        communicator(ranks),
        groups(ranks),
        pool(config.threads),
        target(device != nullptr ? device->target : ExecutionTarget()),
        agree_on_libraries(device != nullptr ? device->agree_on_libraries : nullptr),
        device_memory(device != nullptr && config.memory == &host_memory() ? device->memory
                                                                           : nullptr) {
    if (!device_memory || device->sums_on_host) communicator_bytes = 0;
    for (const Program& program : programs) require_kernels(program.graph, program.backend);
  }

  /// Collective.
  void start(const Hooks& hooks) {
    if (hooks.compiled) hooks.compiled(programs[0]);
    agree();
    if (agree_on_libraries != nullptr)
      library_hash = agree_on_libraries(communicator, programs, target.stream);
    split();
    allocate();
    if (hooks.bound) hooks.bound(*executors[0]);
    agree_on_replays();
    initialize_parameters();
  }

  /// Everything that decides arithmetic and order, line by line.
  void agree() {
    std::vector<std::string> lines{
        fmt::format("{} micro-batches of {} samples, seed {}", config.micro_batches, config.samples,
                    config.seed),
        fmt::format("{} copies of the model state, over {} ranks each", options.replicas,
                    layout.ranks()),
        fmt::format("rate {} after {} steps of warm-up, {} steps, kind {}", config.schedule.lr,
                    config.schedule.warmup, config.schedule.steps,
                    static_cast<int>(config.schedule.kind)),
        fmt::format("kernels for {} with {} threads{}", programs[0].backend.cpu,
                    programs[0].backend.threads,
                    programs[0].backend.find_kernel == nullptr ? ""
                    : config.deterministic                     ? ", a device's first"
                                           : ", a device's first, sums in any order")};
    for (const Parameter& p : layout.parameters()) {
      lines.push_back(fmt::format("parameter {} {} {} {}", p.name, to_string(p.shape),
                                  static_cast<int>(p.initializer.kind), p.initializer.value));
    }
    for (const Program& program : programs) {
      std::istringstream graph(to_string(program.graph));
      for (std::string line; std::getline(graph, line);) lines.push_back(line);
      for (std::string& line : describe(program)) lines.push_back(std::move(line));
    }
    require_agreement(communicator, "compiled step", lines);
  }

  /// NCCL's collectives are recorded by all ranks or by none, and graphs with those of several
  /// communicators may block each other.
  void agree_on_replays() {
    if (!target.replays || communicator.size() == 1) return;
    const auto issues = [](const auto& executor) { return !executor->would_replay(); };
    std::int32_t issuing = options.replicas > 1 || std::ranges::any_of(executors, issues) ? 1 : 0;
    communicator.all_reduce({&issuing, DType::i32, {1}}, "replays").wait();
    if (issuing == 0) return;
    for (const auto& executor : executors) executor->issue_always();
  }

  /// Where there are several copies of the model state, communicators within and across them.
  void split() {
    if (options.replicas == 1) return;
    const int rank = communicator.rank(), shards = layout.ranks();
    own_shards = communicator.split(rank / shards, rank);
    own_replicas = communicator.split(rank % shards, rank);
    groups.shards = own_shards.get();
    groups.replicas = own_replicas.get();
  }

  void allocate() {
    const PerSpace<std::int64_t> bytes = arena_bytes();
    allocated = std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
    const Room room = survey(communicator, config.device);
    collectively(communicator, [&] {
      require_within_budget();
      take_memory(bytes, room);
    });
    for (const Program& program : programs) {
      executors.push_back(std::make_unique<Executor>(program, bases, groups, pool, target));
      executors.back()->poison = executors.back()->poison || config.poison;
    }
    if (config.allocation_trace != nullptr) record_allocations(*config.allocation_trace);
    bind_batches();
  }

  /// States in the host's reach, until the next run.
  struct HostValues {
    StateImage image;
    FlatValues values;
  };
  HostValues& host_values() {
    if (!on_host) {
      StateImage image(states, bases, target);
      FlatValues values(layout, config.optimizer, image.views(), *groups.shards);
      on_host.emplace(HostValues{std::move(image), std::move(values)});
    }
    return *on_host;
  }

  void record_allocations(TraceWriter& trace) {
    for (const auto& [name, entry] : states.entries()) {
      if (entry.type.bytes() == 0) continue;
      const std::byte* data = bases[static_cast<std::size_t>(entry.space)] + entry.offset;
      trace.write("allocate", data, entry.type.bytes(), entry.category, 0, name);
    }
    executors[0]->live().on_use = [&, &graph = programs[0].graph](const BufferUse& use) {
      if (use.bytes == 0) return;
      std::string name = "input";
      if (use.maker != nullptr) {
        const std::string_view label = label_of(graph, *use.maker);
        name = fmt::format("{}{}{}", label, label.empty() ? "" : " ", use.maker->op->name);
      }
      trace.write(use.begins ? "allocate" : "free", use.data, use.bytes, use.category,
                  use.maker != nullptr && use.maker->op->start != nullptr ? 1 : 0, name);
    };
  }

  void require_within_budget() const {
    const std::int64_t needed = allocated + communicator_bytes;
    if (config.recompute != Recompute::budget || needed <= config.memory_budget) return;
    throw InvalidArgument(
        fmt::format("a memory budget of {} cannot be met: validation or sampling need {} per rank",
                    format_bytes(config.memory_budget), format_bytes(needed)));
  }

  MemoryResource& private_memory() const { return device_memory ? *device_memory : *config.memory; }

  /// Memory that the machine does not have is refused before it is touched.
  void take_memory(const PerSpace<std::int64_t>& bytes, const Room& room) {
    const auto refuse = [&](std::string_view why) {
      throw OutOfMemory(
          fmt::format("rank {}: out of memory: {}; the step needs {} per rank ({}); {}",
                      communicator.rank(), why, format_bytes(allocated),
                      describe(planned().at_peak), relief(config.zero.stage, config.recompute)));
    };
    if (allocated > room.available / room.ranks) {
      const bool host = config.device.type == DeviceType::cpu;
      refuse(fmt::format("{} are available {} for {} rank(s)", format_bytes(room.available),
                         host ? "here" : "on " + to_string(config.device), room.ranks));
    }
    for (std::size_t s = 0; s < kSpaces; ++s) {
      const auto space = static_cast<Space>(s);
      const bool window = space == Space::state_window || space == Space::transient_window;
      try {
        arenas[s] = Buffer(window ? groups.shards->window() : private_memory(), bytes[s],
                           Category::activation);
      } catch (const OutOfMemory& error) {
        refuse(error.what());
      }
      bases[s] = arenas[s].data();
      if (s < 2) fill_async(bases[s], 0, bytes[s], target.stream);
    }
    target.stream.synchronize();
  }

  void initialize_parameters() {
    fill([this](const Parameter& parameter, std::int64_t first, TensorView part) {
      const std::int64_t count = part.elements(),
                         share = (count + pool.threads() - 1) / pool.threads();
      pool.parallel(pool.threads(), [&](int thread) {
        const std::int64_t begin = std::min(thread * share, count);
        initialize(parameter, config.seed, first + begin,
                   part.flat_slice(begin, std::min(share, count - begin)));
      });
    });
  }

  void fill(const ParameterSource& source) {
    collectively(communicator, [&] {
      HostValues& host = host_values();
      host.values.fill(source);
      host.image.store();
    });
  }

  RunTimes run(std::size_t program, const RunContext& context,
               const std::function<void(std::int64_t)>& load) {
    detail::make_current(config.device);
    if (!target.stream.is_inline()) on_host.reset();
    return executors[program]->run(context, load);
  }

  RunContext context() const {
    RunContext run;
    run.seed = config.seed;
    run.step = steps + 1;
    run.micro_batches = config.micro_batches;
    run.first_sample = communicator.rank() * config.samples;
    run.learning_rate = config.schedule.rate(steps + 1);
    return run;
  }

  /// Looked up once, so that a step allocates nothing.
  void bind_batches() {
    for (std::size_t p = 0; p < programs.size(); ++p) {
      std::vector<Batch>& in = inputs.emplace_back(executors[p]->input_slots());
      Batch& out = outputs.emplace_back();
      for (const auto& [name, operands] : programs[p].inputs) {
        for (std::size_t slot = 0; slot < in.size(); ++slot)
          in[slot].emplace(name, executors[p]->input(name, static_cast<int>(slot)));
      }
      for (const auto& [name, operand] : programs[p].outputs)
        out.emplace(name, executors[p]->output(name));
    }
  }

  std::unique_ptr<StepDevice> own_device;  // null: the CPU, or somebody else's
  Communicator& communicator;
  std::unique_ptr<Communicator> own_shards, own_replicas;  // null: one copy of the model state
  RankGroups groups;
  ThreadPool pool;
  ExecutionTarget target;
  decltype(DeviceSide::agree_on_libraries) agree_on_libraries;
  std::uint64_t library_hash = 0;
  std::shared_ptr<CachingResource> device_memory;  // null: not measured
  PerSpace<Buffer> arenas;
  PerSpace<std::byte*> bases{};
  std::int64_t allocated = 0;
  std::vector<std::unique_ptr<Executor>> executors;
  std::vector<std::vector<Batch>> inputs;  // by program and slot
  std::vector<Batch> outputs;              // by program
  std::optional<HostValues> on_host;
  std::int64_t steps = 0;
};

TrainStep::TrainStep(Communicator& communicator, const LossModel& model, const TrainConfig& config,
                     const std::vector<ForwardModel>& forwards)
    : TrainStep(communicator, model, config, forwards, {}) {}
TrainStep::TrainStep(Communicator& communicator, const LossModel& model, const TrainConfig& config,
                     const std::vector<ForwardModel>& forwards, const Hooks& hooks) {
  std::unique_ptr<StepDevice> own;
  if (hooks.device == nullptr) own = StepDevice::open(communicator, config);
  const DeviceSide* const device = own ? &own->side() : hooks.device;
  Communicator& ranks = own ? own->ranks() : communicator;
  collectively(ranks, [&] {
    implementation_ = std::make_unique<Implementation>(ranks, model, config, forwards, device);
  });
  implementation_->own_device = std::move(own);
  implementation_->start(hooks);
}
TrainStep::~TrainStep() = default;
TrainStep::TrainStep(TrainStep&&) noexcept = default;

StepResult TrainStep::step(const Loader& load) {
  Implementation& self = *implementation_;
  Executor& executor = *self.executors[0];
  const RunContext context = self.context();
  const std::vector<Batch>& held = self.inputs[0];
  const RunTimes times = self.run(0, context, [&](std::int64_t micro_batch) {
    load(micro_batch, held[static_cast<std::size_t>(micro_batch) % held.size()]);
  });
  ++self.steps;
  StepResult result;
  result.loss = *self.outputs[0].at("loss").as<float>();
  result.grad_norm = *self.outputs[0].at("grad_norm").as<double>();
  result.learning_rate = context.learning_rate;
  result.seconds_forward = times.forward;
  result.seconds_backward = times.backward;
  result.seconds_update = times.update;
  result.seconds_exposed = times.exposed;
  result.flops = executor.flops();
  result.memory = measured_memory(self, executor, self.allocated, self.device_memory.get(),
                                  self.groups.shards->window());
  result.replayed = times.replayed;
  return result;
}

const Batch& TrainStep::forward(int index, const Loader& load) {
  Implementation& self = *implementation_;
  const std::size_t program = static_cast<std::size_t>(index) + 1;
  RunContext context = self.context();
  context.micro_batches = 1;
  const Batch& batch = self.inputs[program][0];
  self.run(program, context, [&](std::int64_t micro_batch) { load(micro_batch, batch); });
  return self.outputs[program];
}

std::int64_t TrainStep::steps() const { return implementation_->steps; }
void TrainStep::set_steps(std::int64_t steps) { implementation_->steps = steps; }
const FlatLayout& TrainStep::layout() const { return implementation_->layout; }
std::vector<ShardView> TrainStep::shards() const {
  return implementation_->host_values().values.shards();
}
void TrainStep::restore_from_shards() {
  implementation_->host_values().values.spread();
  implementation_->host_values().image.store();
}
void TrainStep::load_parameters(const ParameterSource& source) { implementation_->fill(source); }
void TrainStep::read_parameter(int parameter, TensorView values) {
  Implementation& self = *implementation_;
  if (self.communicator.rank() < self.layout.ranks())
    self.host_values().values.read(parameter, values);
}
PerCategory<std::int64_t> TrainStep::state_bytes() const {
  return implementation_->states.by_category();
}
std::int64_t TrainStep::allocated_bytes() const { return implementation_->allocated; }
std::int64_t TrainStep::window_bytes() const {
  return implementation_->arenas[1].bytes() + implementation_->arenas[3].bytes();
}
LibraryChoices TrainStep::library_choices() const {
  const Implementation& self = *implementation_;
  if (self.library_hash == 0) return {};
  return {self.programs[0].backend.cpu, fmt::format("{:016x}", self.library_hash)};
}
SentBytes TrainStep::sent_bytes() const {
  SentBytes sent{};
  implementation_->groups.for_each([&](const Communicator& communicator) {
    const SentBytes more = communicator.sent_bytes();
    std::ranges::transform(sent, more, sent.begin(), std::plus<>());
  });
  return sent;
}
MemoryUse TrainStep::planned() const { return implementation_->planned(); }
int TrainStep::first_bad_parameter() const {
  return implementation_->host_values().values.first_bad_gradient();
}
std::vector<std::string> TrainStep::program() const {
  return describe(implementation_->programs[0]);
}

}  // namespace ashlar
