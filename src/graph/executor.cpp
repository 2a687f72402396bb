#include "graph/executor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "ashlar/error.hpp"
#include "graph/cost.hpp"

namespace ashlar {
namespace {

using Clock = std::chrono::steady_clock;

std::size_t index(int i) { return static_cast<std::size_t>(i); }

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Executor::Executor(const Program& program, const PerSpace<std::byte*>& bases,
                   Communicator& communicator, ThreadPool& pool)
    : program_(program),
      bases_(bases),
      communicator_(communicator),
      pool_(pool),
      work_(program.graph.nodes.size()),
      uses_(program.storage.buffers.size()),
      live_(program.storage.buffers.size()),
      carried_(program.storage.buffers.size()) {
#ifdef NDEBUG
  poison = false;
#else
  poison = true;
#endif
  for (int i = 0; i < static_cast<int>(program.steps.size()); ++i) {
    const Step& step = program.steps[index(i)];
    const Node& node = program.graph.nodes[index(step.node)];
    Bound bound;
    for (const Operand& operand : step.inputs) bound.inputs.push_back(bind(operand));
    for (const Operand& operand : step.outputs) bound.outputs.push_back(bind(operand));
    if (node.op->prepare != nullptr && step.kind != Instruction::Kind::wait) {
      const NodeTypes types = types_of(program.graph, node);
      bound.plan =
          node.op->prepare({types.inputs, types.outputs, node.attributes}, program.backend);
    }
    if (step.workspace.present) {
      bound.workspace = bind(step.workspace).data;
      bound.workspace_bytes = step.workspace.type.bytes();
    }
    const auto touch = [&](ValueId id) {
      if (id != kNoValue) bound.touched.push_back(program.storage.places[index(id)].buffer);
    };
    for (const ValueId id : node.inputs) touch(id);
    if (node.op->view == nullptr) {
      for (const ValueId id : node.outputs) touch(id);
    }
    bound.values = node.inputs;
    bound.values.insert(bound.values.end(), node.outputs.begin(), node.outputs.end());
    bound_.push_back(std::move(bound));
  }
  find_carried();
  for (const auto& [buffer, offset] : program.placed) {
    if (buffer.last <= buffer.first || buffer.last > static_cast<int>(bound_.size())) continue;
    const bool carried = buffer.first < program.body_first && buffer.last >= program.body_last;
    bound_[index(buffer.last - 1)].dying.push_back(
        {bases[buffer.window ? 3 : 2] + offset, buffer.bytes, carried});
  }
}

/// What the prologue makes for later is read by every micro-batch.
void Executor::find_carried() {
  std::vector<bool> made(carried_.size());
  for (int i = 0; i < static_cast<int>(bound_.size()); ++i) {
    for (const int buffer : bound_[index(i)].touched) {
      if (i < program_.body_first) {
        made[index(buffer)] = true;
      } else if (made[index(buffer)]) {
        carried_[index(buffer)] = true;
      }
    }
  }
}

Executor::~Executor() { release_all(); }

void Executor::allocate_apart(MemoryResource* resource) {
  release_all();
  apart_ = resource;
}

TensorView Executor::bind(const Operand& operand) const {
  if (!operand.present) return {};
  return {bases_[index(static_cast<int>(operand.space))] + operand.offset +
              communicator_.rank() * operand.rank_stride,
          operand.type.dtype, operand.type.shape, operand.strides};
}

TensorView Executor::input(const std::string& name, int micro_batch) const {
  const auto found = program_.inputs.find(name);
  if (found == program_.inputs.end())
    throw InvalidArgument(fmt::format("the program has no input '{}'", name));
  return apart_view(program_.graph.input(name, micro_batch),
                    bind(found->second.at(index(micro_batch))));
}

TensorView Executor::output(const std::string& name) const {
  const auto found = program_.outputs.find(name);
  if (found == program_.outputs.end())
    throw InvalidArgument(fmt::format("the program has no output '{}'", name));
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

/// Memory may go only when nothing is in flight any more: the group fails, so waits end at once.
void Executor::settle(const char* reason) noexcept {
  communicator_.abort(reason);
  for (Work& work : work_) {
    try {
      std::exchange(work, {}).wait();
    } catch (const std::exception&) {  // the failure that is being reported already
    }
  }
}

RunTimes Executor::run_all(RunContext context, const std::function<void(std::int64_t)>& load) {
  context.communicator = &communicator_;
  context.pool = &pool_;
  times_ = {};
  flops_ = 0;
  release_all();
  in_use_ = peak_ = at_peak_ = {};
  peak_load_ = padding_ = padding_at_peak_ = 0;
  const int end = static_cast<int>(program_.steps.size());
  count_uses(0, end);
  run_section(0, program_.body_first, context);
  const int held = program_.micro_batches;
  for (context.micro_batch = 0; context.micro_batch < context.micro_batches;
       context.micro_batch += held) {
    if (context.micro_batch > 0) count_uses(program_.body_first, end);
    for (const ValueId id : program_.graph.inputs) {
      if (program_.graph[id].input == InputKind::data)
        begin_use(program_.storage.places[index(id)].buffer);
    }
    for (int k = 0; k < held; ++k) load(context.micro_batch + k);
    run_section(program_.body_first, program_.body_last, context);
  }
  context.micro_batch = context.micro_batches - 1;
  for (std::size_t b = 0; b < carried_.size(); ++b) {
    if (carried_[b]) end_use(static_cast<int>(b));  // the hold of count_uses
  }
  run_section(program_.body_last, end, context);
  return times_;
}

void Executor::run_section(int first, int last, const RunContext& context) {
  for (int i = first; i < last; ++i) {
    const Node& node = program_.graph.nodes[index(program_.steps[index(i)].node)];
    const auto start = Clock::now();
    execute(i, context);
    const double seconds = seconds_since(start);
    if (program_.steps[index(i)].kind == Instruction::Kind::wait) {
      times_.exposed += seconds;
    } else if (node.section == Section::update) {
      times_.update += seconds;
    } else {
      (node.backward ? times_.backward : times_.forward) += seconds;
    }
  }
}

void Executor::execute(int i, RunContext context) {
  const Step& step = program_.steps[index(i)];
  const Node& node = program_.graph.nodes[index(step.node)];
  Bound& bound = bound_[index(i)];
  context.micro_batch += node.micro_batch;
  begin_use(bound);
  if (apart_ != nullptr) bind_apart(bound);
  const KernelArguments arguments{
      context,
      node.attributes,
      bound.inputs,
      bound.outputs,
      bound.workspace,
      bound.plan.get(),
      node.unit < 0 ? std::string_view() : program_.graph.units[index(node.unit)]};
  if (step.kind == Instruction::Kind::wait) {
    work_[index(step.node)].wait();
    work_[index(step.node)] = {};
  } else {
    if (on_event) on_event({step.kind, step.node, context.micro_batch});
    if (step.kind == Instruction::Kind::start) {
      work_[index(step.node)] = node.op->start(arguments);
    } else if (node.op->run != nullptr) {
      node.op->run(arguments);
      flops_ += step.flops;
    }
  }
  if (on_event && step.kind == Instruction::Kind::wait)
    on_event({step.kind, step.node, context.micro_batch});
  end_use(i, bound);
  if (!poison) return;
  const std::int64_t next = context.micro_batch - node.micro_batch + program_.micro_batches;
  for (const Dying& dying : bound.dying) {
    if (dying.carried && next < context.micro_batches) continue;
    std::memset(dying.data, 0xff, static_cast<std::size_t>(dying.bytes));
  }
}

void Executor::count_uses(int first, int last) {
  for (int i = first; i < last; ++i) {
    for (const int buffer : bound_[index(i)].touched) uses_[index(buffer)] = 0;
  }
  for (int i = first; i < last; ++i) {
    for (const int buffer : bound_[index(i)].touched) {
      ++uses_[index(buffer)];
      // What an earlier micro-batch left for the update.
      if (live_[index(buffer)] && !carried_[index(buffer)]) release(buffer);
    }
  }
  for (std::size_t b = 0; b < carried_.size(); ++b) {
    if (carried_[b]) ++uses_[b];  // held until the last micro-batch is done
  }
  for (const auto& [name, id] : program_.graph.outputs) {
    ++uses_[index(program_.storage.places[index(id)].buffer)];
  }
}

void Executor::begin_use(int buffer) {
  const StorageBuffer& info = program_.storage.buffers[index(buffer)];
  const bool state = info.kind == InputKind::state || info.kind == InputKind::parameter;
  if (live_[index(buffer)] || state) return;
  live_[index(buffer)] = true;
  in_use_[static_cast<std::size_t>(info.category)] += info.bytes;
  padding_ += align_up(info.bytes) - info.bytes;
  if (apart_ == nullptr) return;
  apart_data_.resize(program_.storage.buffers.size());
  apart_data_[index(buffer)] = apart_->allocate(info.bytes, info.category);
}

void Executor::begin_use(Bound& bound) {
  for (const int buffer : bound.touched) begin_use(buffer);
  if (apart_ != nullptr && bound.workspace_bytes > 0) {
    void* scratch = apart_->allocate(bound.workspace_bytes, Category::workspace);
    bound.workspace = static_cast<std::byte*>(scratch);
  }
  in_use_[static_cast<std::size_t>(Category::workspace)] += bound.workspace_bytes;
  std::int64_t load = 0;
  for (std::size_t c = 0; c < kCategories; ++c) {
    peak_[c] = std::max(peak_[c], in_use_[c]);
    load += in_use_[c];
  }
  if (load <= peak_load_) return;
  peak_load_ = load;
  at_peak_ = in_use_;
  padding_at_peak_ = padding_ + align_up(bound.workspace_bytes) - bound.workspace_bytes;
}

void Executor::end_use(int i, const Bound& bound) {
  if (on_load) on_load(i, in_use_);
  in_use_[static_cast<std::size_t>(Category::workspace)] -= bound.workspace_bytes;
  if (apart_ != nullptr && bound.workspace_bytes > 0) {
    apart_->deallocate(bound.workspace, bound.workspace_bytes, Category::workspace);
  }
  for (const int buffer : bound.touched) end_use(buffer);
}

void Executor::end_use(int buffer) {
  if (--uses_[index(buffer)] == 0 && live_[index(buffer)]) release(buffer);
}

void Executor::release(int buffer) {
  const StorageBuffer& info = program_.storage.buffers[index(buffer)];
  live_[index(buffer)] = false;
  in_use_[static_cast<std::size_t>(info.category)] -= info.bytes;
  padding_ -= align_up(info.bytes) - info.bytes;
  if (apart_ != nullptr) apart_->deallocate(apart_data_[index(buffer)], info.bytes, info.category);
}

void Executor::release_all() {
  for (std::size_t b = 0; b < live_.size(); ++b) {
    if (live_[b]) release(static_cast<int>(b));
  }
}

TensorView Executor::apart_view(ValueId id, TensorView view) const {
  if (id == kNoValue || apart_ == nullptr) return view;
  const Place& place = program_.storage.places[index(id)];
  const InputKind kind = program_.storage.buffers[index(place.buffer)].kind;
  if (kind == InputKind::state || kind == InputKind::parameter) return view;
  view.data = static_cast<std::byte*>(apart_data_[index(place.buffer)]) + place.offset +
              communicator_.rank() * place.rank_stride;
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
