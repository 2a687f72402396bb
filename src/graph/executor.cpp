#include "graph/executor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "base/debug.hpp"
#include "comm/settle.hpp"
#include "graph/cost.hpp"

namespace ashlar {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

}  // namespace

Executor::Executor(const Program& program, const PerSpace<std::byte*>& bases,
                   const RankGroups& ranks, ThreadPool& pool, const ExecutionTarget& target)
    : program_(program),
      bases_(bases),
      ranks_(ranks),
      pool_(pool),
      target_(target),
      work_(program.graph.nodes.size()),
      live_(program, [this](const Operand& operand) { return bind(operand).data; }) {
  require_kernels(program.graph, program.backend);
  if (!inline_stream())
    staging_.emplace(
        program, [this](const Operand& operand) { return bind(operand); }, target);
  poison = kDebugBuild;
  for (int i = 0; i < static_cast<int>(program.steps.size()); ++i) {
    const Step& step = program.steps[index(i)];
    const Node& node = program.graph.nodes[index(step.node)];
    Bound bound;
    bound.communicator = &ranks_.of(among_of(node));
    const DeviceKernel* const kernel = device_kernel(node, program.backend);
    bound.run = kernel != nullptr ? kernel->run : node.op->run;
    bound.enqueues = kernel != nullptr;
    for (const Operand& operand : step.inputs) bound.inputs.push_back(bind(operand));
    for (const Operand& operand : step.outputs) bound.outputs.push_back(bind(operand));
    if (kernel == nullptr && node.op->prepare != nullptr && step.kind != Instruction::Kind::wait) {
      const NodeTypes types = types_of(program.graph, node);
      bound.plan =
          node.op->prepare({types.inputs, types.outputs, node.attributes}, program.backend);
    }
    bound.values = node.inputs;
    bound.values.insert(bound.values.end(), node.outputs.begin(), node.outputs.end());
    bound_.push_back(std::move(bound));
  }
  for (const auto& [buffer, offset] : program.placed) {
    if (buffer.last <= buffer.first || buffer.last > static_cast<int>(bound_.size())) continue;
    const bool carried = buffer.first < program.body_first && buffer.last >= program.body_last;
    bound_[index(buffer.last - 1)].dying.push_back(
        {bases[buffer.window ? 3 : 2] + offset, buffer.bytes, carried});
  }
}

Executor::~Executor() = default;

TensorView Executor::bind(const Operand& operand) const {
  if (!operand.present) return {};
  return {bases_[index(static_cast<int>(operand.space))] + operand.offset +
              ranks_.shards->rank() * operand.rank_stride,
          operand.type.dtype, operand.type.shape, operand.strides};
}

TensorView Executor::input(const std::string& name, int slot) const {
  const auto found = program_.inputs.find(name);
  if (found == program_.inputs.end())
    throw InvalidArgument(fmt::format("the program has no input '{}'", name));
  if (staging_) return staging_->input(name, slot);
  return apart_view(program_.graph.input(name, slot), bind(found->second.at(index(slot))));
}

TensorView Executor::output(const std::string& name) const {
  const auto found = program_.outputs.find(name);
  if (found == program_.outputs.end())
    throw InvalidArgument(fmt::format("the program has no output '{}'", name));
  if (staging_) return staging_->output(name);
  return apart_view(program_.graph.output(name), bind(found->second));
}

RunTimes Executor::run(const RunContext& context, const std::function<void(std::int64_t)>& load) {
  try {
    return run_all(context, load);
  } catch (const std::exception& error) {
    settle(error.what());
    throw;
  }
}

/// Memory may go only when nothing is in flight any more: the groups fail, so waits end at once.
void Executor::settle(const char* reason) noexcept {
  ranks_.for_each([&](Communicator& communicator) { communicator.abort(reason); });
  for (Work& work : work_) {
    detail::settle(work);
    work = {};
  }
  for (Work& work : joined_) detail::settle(work);
  joined_.clear();
  recordings_.clear();
  runs_ = 0;
  try {
    target_.stream.synchronize();
  } catch (const std::exception&) {  // the first error is on its way already
  }
}

RunTimes Executor::run_all(RunContext context, const std::function<void(std::int64_t)>& load) {
  if (staging_ && live_.apart())
    throw InvalidArgument("buffers are allocated apart on the CPU alone: a device uses them later");
  context.pool = &pool_;
  context.stream = target_.stream;
  const bool issues = !choose_replay(context);
  if (staging_) context.on_device = staging_->send(context);
  clock_ = {};
  times_ = {.replayed = !issues};
  if (staging_) sent_after_.assign(index(staging_->slots()), 0);
  if (issues) flops_ = 0;
  if (issues) live_.begin_run();
  std::size_t number = 0;
  section(number++, [&] { run_section(0, program_.body_first, context); });
  const int held = program_.micro_batches;
  for (context.micro_batch = 0; context.micro_batch < context.micro_batches;
       context.micro_batch += held) {
    if (issues) live_.begin_body(context.micro_batch > 0);
    for (int k = 0; k < held; ++k) load_batch(context.micro_batch + k, load);
    section(number++, [&] { run_section(program_.body_first, program_.body_last, context); });
  }
  context.micro_batch = context.micro_batches - 1;
  if (issues) live_.end_last_body();
  const int end = static_cast<int>(program_.steps.size());
  section(number, [&] { run_section(program_.body_last, end, context); });
  end_run();
  ++runs_;
  return times_;
}

/// @return whether all of the run was recorded before: what it counts is then what that run has
/// counted. Numbers of the context that launches hold begin anew, and somebody who watches sees
/// everything issued.
bool Executor::choose_replay(const RunContext& context) {
  if (target_.replays && watched() && ranks_.world->size() > 1)
    throw InvalidArgument(
        "where ranks replay, somebody who watches instructions does so before the first step");
  const bool same = context.micro_batches == recorded_.micro_batches &&
                    context.first_sample == recorded_.first_sample;
  if (!same || !would_replay()) {
    recordings_.clear();
    runs_ = 0;
    recorded_ = context;
  }
  return !recordings_.empty();
}

template <typename Issue>
void Executor::section(std::size_t number, const Issue& issue) {
  if (!target_.replays || runs_ == 0) return issue();
  if (number == recordings_.size()) record(recordings_.emplace_back(), issue);
  replay(recordings_[number]);
}

template <typename Issue>
void Executor::record(Recording& recording, const Issue& issue) {
  detail::StreamState& stream = detail::state_of(target_.stream);
  stream.begin_recording();
  recording_ = &recording;
  std::exception_ptr error;
  try {
    issue();
  } catch (...) {
    error = std::current_exception();
  }
  recording_ = nullptr;
  try {
    recording.graph = stream.end_recording();
  } catch (...) {
    if (!error) throw;
  }
  if (error) std::rethrow_exception(error);
}

/// Collectives of a launch have ended when it has: nothing else of it is visible from outside.
void Executor::replay(Recording& recording) {
  for (Work& work : recording.collectives) work.wait();  // for none: their group may have failed
  if (recording.collectives.empty()) return recording.graph->launch();
  const Event before = target_.stream.record();
  recording.graph->launch();
  const Event after = target_.stream.record();
  for (const Work& work : recording.collectives) joined_.push_back(work.replayed(before, after));
}

/// The slot's last batch was copied after collectives, which may fail.
void Executor::load_batch(std::int64_t micro_batch, const std::function<void(std::int64_t)>& load) {
  if (!staging_) return load(micro_batch);
  const int slot = static_cast<int>(micro_batch % staging_->slots());
  std::for_each_n(joined_.begin(), sent_after_[index(slot)], [](Work& work) { work.wait(); });
  staging_->reclaim(slot);
  load(micro_batch);
  staging_->send(slot);
  sent_after_[index(slot)] = joined_.size();
}

/// Errors of collectives first: a stream may wait for one that has failed.
void Executor::end_run() {
  if (staging_) staging_->fetch();
  for (Work& work : joined_) work.wait();
  joined_.clear();
  target_.stream.synchronize();
}

void Executor::run_section(int first, int last, const RunContext& context) {
  for (int i = first; i < last; ++i) {
    clock_.enter(target_.stream, section_of(program_.steps[index(i)]));
    execute(i, context);
  }
  clock_.enter(target_.stream, nullptr);
}

double* Executor::section_of(const Step& step) {
  const Node& node = program_.graph.nodes[index(step.node)];
  if (step.kind == Instruction::Kind::wait && inline_stream()) return &times_.exposed;
  if (node.section == Section::update) return &times_.update;
  return node.backward ? &times_.backward : &times_.forward;
}

void Executor::execute(int i, RunContext context) {
  const Step& step = program_.steps[index(i)];
  const Node& node = program_.graph.nodes[index(step.node)];
  Bound& bound = bound_[index(i)];
  context.micro_batch += node.micro_batch;
  context.communicator = bound.communicator;
  live_.begin(i);
  if (live_.apart()) bind_apart(bound);
  const KernelArguments arguments{context,
                                  node.attributes,
                                  bound.inputs,
                                  bound.outputs,
                                  live_.workspace(i),
                                  bound.plan.get(),
                                  label_of(program_.graph, node)};
  if (step.kind == Instruction::Kind::wait) {
    finish(work_[index(step.node)]);
  } else {
    if (on_event) on_event({step.kind, step.node, context.micro_batch});
    if (step.kind == Instruction::Kind::start) {
      work_[index(step.node)] = node.op->start(arguments);
      if (recording_ != nullptr && ranks_.world->size() > 1)
        recording_->collectives.push_back(work_[index(step.node)]);
    } else if (bound.run != nullptr) {
      launch(bound, arguments);
      flops_ += step.flops;
    }
  }
  if (on_event && step.kind == Instruction::Kind::wait)
    on_event({step.kind, step.node, context.micro_batch});
  if (on_load) on_load(i, live_.in_use());
  live_.end(i);
  if (!poison) return;
  const std::int64_t next = context.micro_batch - node.micro_batch + program_.micro_batches;
  for (const Dying& dying : bound.dying) {
    if (dying.carried && next < context.micro_batches) continue;
    fill_async(dying.data, 0xff, dying.bytes, target_.stream);
  }
}

/// A row's own kernel takes its turn on the stream, which then works on memory of the host.
void Executor::launch(const Bound& bound, const KernelArguments& arguments) const {
  if (bound.enqueues || inline_stream()) return bound.run(arguments);
  target_.stream.enqueue([run = bound.run, k = arguments, context = arguments.context] {
    run({context, k.attributes, k.inputs, k.outputs, k.workspace, k.plan, k.label});
  });
}

void Executor::finish(Work& work) {
  if (!inline_stream()) work.join(target_.stream);
  if (recording_ == nullptr) {
    if (inline_stream() || work.done())
      work.wait();
    else
      joined_.push_back(work);
  }
  work = {};
}

TensorView Executor::apart_view(ValueId id, TensorView view) const {
  if (id == kNoValue || !live_.apart()) return view;
  const Place& place = program_.storage.places[index(id)];
  const InputKind kind = program_.storage.buffers[index(place.buffer)].kind;
  if (kind == InputKind::state || kind == InputKind::parameter) return view;
  view.data = live_.data(place.buffer) + place.offset + ranks_.shards->rank() * place.rank_stride;
  return view;
}

void Executor::bind_apart(Bound& bound) {
  for (std::size_t v = 0; v < bound.values.size(); ++v) {
    TensorView& view =
        v < bound.inputs.size() ? bound.inputs[v] : bound.outputs[v - bound.inputs.size()];
    view = apart_view(bound.values[v], view);
  }
}

}  // namespace ashlar
