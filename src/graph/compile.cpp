#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"
#include "graph/cost.hpp"
#include "graph/program.hpp"

namespace ashlar {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

class Compiler {
 public:
  Compiler(Graph graph, const ScheduleOptions& options, const Backend& backend, StateLayout& states)
      : backend_(backend), states_(states) {
    program_.graph = std::move(graph);
    program_.backend = backend;
    instructions_ = schedule(program_.graph, options);
    validate(program_.graph, instructions_);
    program_.storage = resolve_storage(program_.graph, instructions_);
  }

  Program run() {
    place_states();
    if (backend_.find_kernel != nullptr) place_scalars();
    find_body();
    add_workspaces();
    place_transients();
    for (std::size_t i = 0; i < instructions_.size(); ++i)
      program_.steps.push_back(make_step(static_cast<int>(i)));
    for (const ValueId id : graph().inputs) {
      if (graph()[id].input != InputKind::data) continue;
      program_.inputs[graph()[id].name].push_back(operand(id));
      program_.micro_batches = std::max(program_.micro_batches, graph()[id].micro_batch + 1);
    }
    for (const auto& [name, id] : graph().outputs) program_.outputs.emplace(name, operand(id));
    return std::move(program_);
  }

 private:
  const Graph& graph() const { return program_.graph; }

  void place_states() {
    for (const StorageBuffer& buffer : program_.storage.buffers) {
      if (buffer.kind != InputKind::state && buffer.kind != InputKind::parameter) continue;
      const ValueInfo& value = graph()[buffer.root];
      states_.add(value.name, value.type, value.category, buffer.window);
    }
  }

  void place_scalars() {
    const TensorType type{DType::u8, {sizeof(RunScalars)}};
    const StateLayout::Entry& entry = states_.add("scalars", type, Category::workspace, false);
    program_.scalars = {entry.space, entry.offset, 0, type, {1}, true};
  }

  void find_body() {
    const auto is_body = [&](const Instruction& i) {
      return graph().nodes[index(i.node)].section == Section::body;
    };
    const auto first = std::find_if(instructions_.begin(), instructions_.end(), is_body);
    const auto last = std::find_if_not(first, instructions_.end(), is_body);
    program_.body_first = static_cast<int>(first - instructions_.begin());
    program_.body_last = static_cast<int>(last - instructions_.begin());
  }

  void add_workspaces() {
    scratch_slot_.assign(instructions_.size(), -1);
    for (const StorageBuffer& buffer : program_.storage.buffers) {
      slot_of_.push_back(-1);
      if (buffer.kind != InputKind::none && buffer.kind != InputKind::data) continue;
      slot_of_.back() = static_cast<int>(program_.placed.size());
      program_.placed.emplace_back(buffer, 0);
    }
    for (std::size_t i = 0; i < instructions_.size(); ++i) {
      const Node& node = graph().nodes[index(instructions_[i].node)];
      if (instructions_[i].kind != Instruction::Kind::run) continue;
      StorageBuffer scratch;
      scratch.bytes = workspace_of(graph(), node, backend_);
      if (scratch.bytes == 0) continue;
      scratch.category = Category::workspace;
      scratch.first = static_cast<int>(i);
      scratch.last = static_cast<int>(i) + 1;
      scratch_slot_[i] = static_cast<int>(program_.placed.size());
      program_.placed.emplace_back(scratch, 0);
    }
  }

  /// The window's arena first; what peers do not read fills its gaps, the rest has an arena of its
  /// own.
  void place_transients() {
    std::vector<std::size_t> sent, others;
    for (std::size_t b = 0; b < program_.placed.size(); ++b) {
      const StorageBuffer& buffer = program_.placed[b].first;
      if (buffer.last > buffer.first) (buffer.window ? sent : others).push_back(b);
    }
    const MemoryPlan window = plan(sent, Space::transient_window);
    std::vector<std::size_t> all = sent;
    all.insert(all.end(), others.begin(), others.end());
    const MemoryPlan filled = fill_gaps(problem_of(all), window, kAlignment);
    std::vector<std::size_t> rest, inside = sent;
    for (std::size_t i = sent.size(); i < all.size(); ++i) {
      if (filled.offsets[i] < 0) {
        rest.push_back(all[i]);
      } else {
        program_.placed[all[i]].first.window = true;
        program_.placed[all[i]].second = filled.offsets[i];
        inside.push_back(all[i]);
      }
    }
    MemoryPlan both{{}, window.height};
    for (const std::size_t id : inside) both.offsets.push_back(program_.placed[id].second);
    validate(problem_of(inside), both, kAlignment);
    plan(rest, Space::transient);
  }

  std::vector<PlannedBuffer> problem_of(const std::vector<std::size_t>& ids) const {
    std::vector<PlannedBuffer> problem;
    for (const std::size_t id : ids) {
      const StorageBuffer& buffer = program_.placed[id].first;
      problem.push_back({buffer.first, buffer.last, buffer.bytes});
    }
    return problem;
  }

  MemoryPlan plan(const std::vector<std::size_t>& ids, Space space) {
    const auto problem = problem_of(ids);
    const MemoryPlan result = plan_memory(problem, kAlignment);
    validate(problem, result, kAlignment);
    for (std::size_t i = 0; i < ids.size(); ++i) program_.placed[ids[i]].second = result.offsets[i];
    program_.heights[index(static_cast<int>(space))] = result.height;
    return result;
  }

  Operand operand(ValueId id) const {
    if (id == kNoValue) return {};
    const Place& place = program_.storage.places[index(id)];
    const StorageBuffer& buffer = program_.storage.buffers[index(place.buffer)];
    Operand result{Space::transient, place.offset,        place.rank_stride,
                   graph()[id].type, graph()[id].strides, true};
    if (const int slot = slot_of_[index(place.buffer)]; slot >= 0) {
      const auto& [placed, offset] = program_.placed[index(slot)];
      result.space = placed.window ? Space::transient_window : Space::transient;
      result.offset += offset;
    } else {
      const StateLayout::Entry& entry = states_.at(graph()[buffer.root].name);
      result.space = entry.space;
      result.offset += entry.offset;
    }
    return result;
  }

  Step make_step(int i) const {
    const Node& node = graph().nodes[index(instructions_[index(i)].node)];
    Step step;
    step.kind = instructions_[index(i)].kind;
    step.node = instructions_[index(i)].node;
    if (step.kind == Instruction::Kind::run) step.flops = cost_of(graph(), node).flops;
    for (const ValueId id : node.inputs) step.inputs.push_back(operand(id));
    for (const ValueId id : node.outputs) step.outputs.push_back(operand(id));
    if (const int slot = scratch_slot_[index(i)]; slot >= 0) {
      const auto& [buffer, offset] = program_.placed[index(slot)];
      const Space space = buffer.window ? Space::transient_window : Space::transient;
      step.workspace = {space, offset, 0, {DType::u8, {buffer.bytes}}, {1}, true};
    }
    return step;
  }

  Backend backend_;
  StateLayout& states_;
  Program program_;
  std::vector<Instruction> instructions_;
  std::vector<int> slot_of_;       // by storage buffer: index into placed, -1 for states
  std::vector<int> scratch_slot_;  // by instruction: index into placed
};

}  // namespace

const StateLayout::Entry& StateLayout::add(const std::string& name, const TensorType& type,
                                           Category category, bool window) {
  const auto found = entries_.find(name);
  if (found != entries_.end()) {
    if (!(found->second.type == type))
      throw InvalidArgument(fmt::format("state '{}' is used with two types", name));
    return found->second;
  }
  const Space space = window ? Space::state_window : Space::state;
  std::int64_t& end = bytes_[index(static_cast<int>(space))];
  const Entry entry{space, end, type, category};
  end += align_up(type.bytes());
  return entries_.emplace(name, entry).first->second;
}

const StateLayout::Entry& StateLayout::at(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw InvalidArgument(fmt::format("there is no state '{}'", name));
  return found->second;
}

PerCategory<std::int64_t> StateLayout::by_category() const {
  PerCategory<std::int64_t> bytes{};
  for (const auto& [name, entry] : entries_)
    bytes[static_cast<std::size_t>(entry.category)] += entry.type.bytes();
  return bytes;
}

Program compile(Graph graph, const ScheduleOptions& options, const Backend& backend,
                StateLayout& states) {
  return Compiler(std::move(graph), options, backend, states).run();
}

}  // namespace ashlar
