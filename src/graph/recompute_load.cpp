#include "graph/recompute_load.hpp"

#include <algorithm>
#include <limits>
#include <set>

#include "graph/cost.hpp"

namespace ashlar {
namespace {

constexpr int kNever = std::numeric_limits<int>::max();

bool contains(const std::vector<ValueId>& ids, ValueId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

RecomputeLoad::RecomputeLoad(const Graph& graph, const Backend& backend, bool gathers)
    : graph_(graph),
      entries_(graph.values.size()),
      remade_(graph.values.size(), false),
      tree_(static_cast<int>(graph.nodes.size())) {
  find_roots();
  find_readers();
  find_reuse();
  for (ValueId id = 0; id < static_cast<ValueId>(entries_.size()); ++id) {
    if (entries_[index(id)].candidate) find_operands(id);
  }
  for (ValueId id = 0; id < static_cast<ValueId>(entries_.size()); ++id) {
    if (entries_[index(id)].born >= 0) count(id, 1);
  }
  add_workspaces(backend);
  if (gathers) add_gathers();
}

void RecomputeLoad::find_roots() {
  for (ValueId id = 0; id < static_cast<ValueId>(graph_.values.size()); ++id) roots_.push_back(id);
  for (int n = 0; n < static_cast<int>(graph_.nodes.size()); ++n) {
    const Node& node = graph_.nodes[index(n)];
    for (const ValueId id : node.outputs) {
      Entry& entry = entries_[index(id)];
      if (node.op->view != nullptr) {
        roots_[index(id)] = roots_[index(node.inputs[0])];
      } else {
        entry.born = entry.last_forward = n;
        entry.bytes = graph_[id].type.bytes();
        entry.candidate = may_be_remade(graph_, id);
      }
      entry.first_backward = kNever;
    }
  }
}

void RecomputeLoad::find_readers() {
  for (int n = 0; n < static_cast<int>(graph_.nodes.size()); ++n) {
    const Node& node = graph_.nodes[index(n)];
    if (node.op->view != nullptr) continue;
    for (const ValueId input : node.inputs) {
      if (input == kNoValue) continue;
      const ValueId id = roots_[index(input)];
      Entry& entry = entries_[index(id)];
      if (entry.born < 0) continue;
      const bool same_unit = maker(id).unit == node.unit;
      if (!node.backward || maker(id).backward) {
        entry.last_forward = n;
        if (same_unit && !node.backward)
          entry.readers.insert(entry.readers.end(), node.outputs.begin(), node.outputs.end());
      } else {
        entry.first_backward = std::min(entry.first_backward, n);
        entry.last_backward = n;
        entry.candidate = entry.candidate && same_unit;
      }
    }
  }
  for (const auto& [name, output] : graph_.outputs) {
    Entry& entry = entries_[index(roots_[index(output)])];
    entry.candidate = false;
    // What backward gives out goes to reductions; the rest is read after the run.
    if (entry.born >= 0 && !maker(roots_[index(output)]).backward)
      entry.last_forward = static_cast<int>(graph_.nodes.size()) - 1;
  }
}

/// In backward, a result that takes over the bytes of what dies there lives from the next node on.
void RecomputeLoad::find_reuse() {
  for (int n = 0; n < static_cast<int>(graph_.nodes.size()); ++n) {
    const Node& node = graph_.nodes[index(n)];
    if (!node.backward) continue;
    for (const int i : node.op->may_reuse) {
      if (node.inputs[index(i)] == kNoValue) continue;
      const Entry& input = entries_[index(roots_[index(node.inputs[index(i)])])];
      Entry& output = entries_[index(node.outputs[0])];
      if (input.born < 0 || input.last_forward != n || input.bytes != output.bytes) continue;
      if (graph_.nodes[index(input.born)].backward) output.born = n + 1;
    }
  }
}

/// What the maker of a value reads, and what rebuilding the value reads: seen by trying it.
void RecomputeLoad::find_operands(ValueId id) {
  Entry& entry = entries_[index(id)];
  const Node& node = maker(id);
  for (const ValueId input : node.inputs) {
    if (input != kNoValue) entry.operands.push_back(roots_[index(input)]);
  }
  entry.flops = cost_of(graph_, node).flops;
  if (!can_rebuild(node, id)) return;
  Tracer probe;
  std::vector<ValueId> seen;  // by value of the probe
  const auto stand_ins = [&](const std::vector<ValueId>& ids) {
    std::vector<Value> values;
    for (const ValueId each : ids) {
      values.push_back(each == kNoValue
                           ? Value()
                           : probe.input("", graph_[each].type.dtype, graph_[each].type.shape));
      if (each != kNoValue) seen.push_back(roots_[index(each)]);
    }
    return values;
  };
  const auto inputs = stand_ins(node.inputs), outputs = stand_ins(node.outputs);
  node.op->rebuild(inputs, outputs, node.attributes);
  for (const Node& made : probe.graph().nodes) {
    entry.rebuild_flops += cost_of(probe.graph(), made).flops;
    for (const ValueId read : made.inputs) {
      if (read != kNoValue && index(read) < seen.size())
        entry.rebuild_operands.push_back(seen[index(read)]);
    }
  }
  for (const ValueId other : entry.rebuild_operands) {
    if (contains(node.outputs, other)) entries_[index(other)].readers.push_back(id);
  }
}

/// Each run of nodes of one unit holds the parameters that it reads.
void RecomputeLoad::add_gathers() {
  const int end = static_cast<int>(graph_.nodes.size());
  for (int first = 0, last = 0; first < end; first = last) {
    std::set<ValueId> parameters;
    const int unit = graph_.nodes[index(first)].unit;
    for (; last < end && graph_.nodes[index(last)].unit == unit; ++last) {
      for (const ValueId id : graph_.nodes[index(last)].inputs) {
        if (id == kNoValue) continue;
        const ValueId root = roots_[index(id)];
        if (graph_[root].input == InputKind::parameter) parameters.insert(root);
      }
    }
    for (const ValueId id : parameters) tree_.add(first, last, graph_[id].type.bytes());
  }
}

void RecomputeLoad::add_workspaces(const Backend& backend) {
  for (int n = 0; n < static_cast<int>(graph_.nodes.size()); ++n) {
    const std::int64_t scratch = workspace_of(graph_, graph_.nodes[index(n)], backend);
    if (scratch > 0) tree_.add(n, n + 1, scratch);
  }
}

const std::vector<ValueId>& RecomputeLoad::operands(ValueId id) const {
  const Entry& entry = entries_[index(id)];
  return rebuilds_alone(maker(id), id, remade_) ? entry.rebuild_operands : entry.operands;
}

bool RecomputeLoad::reads(ValueId reader, ValueId id) const {
  return remade_[index(reader)] && contains(operands(reader), id);
}

int RecomputeLoad::needed_from(ValueId id) const {
  int from = entries_[index(id)].first_backward;
  for (const ValueId reader : entries_[index(id)].readers) {
    if (reads(reader, id)) from = std::min(from, needed_from(reader));
  }
  return from;
}

int RecomputeLoad::needed_until(ValueId id) const {
  int until = entries_[index(id)].last_backward + 1;
  for (const ValueId reader : entries_[index(id)].readers) {
    if (!reads(reader, id)) continue;
    const int from = needed_from(reader);
    if (from != kNever) until = std::max(until, from + 1);
  }
  return until;
}

/// Adds or takes away a value's bytes over its life: in one piece when kept, in two when remade.
void RecomputeLoad::count(ValueId id, std::int64_t sign) {
  const Entry& entry = entries_[index(id)];
  const int forward = entry.last_forward + 1, until = needed_until(id);
  if (!remade_[index(id)]) {
    tree_.add(entry.born, std::max(forward, until), sign * entry.bytes);
  } else {
    tree_.add(entry.born, forward, sign * entry.bytes);
    if (until > 0) tree_.add(std::max(needed_from(id), forward), until, sign * entry.bytes);
  }
}

/// The value and all whose lives depend on whether it is remade: what it is made of, in turn.
void RecomputeLoad::add_affected(ValueId id, std::vector<ValueId>& affected) const {
  if (entries_[index(id)].born < 0 || contains(affected, id)) return;
  affected.push_back(id);
  if (maker(id).backward || (affected.size() > 1 && !remade_[index(id)])) return;
  for (const ValueId input : maker(id).inputs) {
    if (input != kNoValue) add_affected(roots_[index(input)], affected);
  }
  for (const ValueId other : maker(id).outputs) add_affected(other, affected);
}

void RecomputeLoad::set(ValueId id, bool again) {
  if (remade_[index(id)] == again) return;
  std::vector<ValueId> affected;
  add_affected(id, affected);
  for (const ValueId each : affected) count(each, -1);
  flops_ -= flops_again(maker(id));
  remade_[index(id)] = again;
  flops_ += flops_again(maker(id));
  for (const ValueId each : affected) count(each, 1);
}

bool RecomputeLoad::kept_over(ValueId id, int instant) const {
  const Entry& entry = entries_[index(id)];
  if (remade_[index(id)] || instant <= entry.last_forward) return false;
  const int from = needed_from(id);
  return from != kNever && instant < from;
}

std::vector<ValueId> RecomputeLoad::extended(ValueId id) const {
  std::vector<ValueId> inputs;
  const int from = needed_from(id);
  for (const ValueId input : operands(id)) {
    const Entry& entry = entries_[index(input)];
    if (entry.born < 0 || remade_[index(input)]) continue;
    if (std::max(entry.last_forward + 1, needed_until(input)) <= from) inputs.push_back(input);
  }
  return inputs;
}

/// What running a node again, or rebuilding its output, adds.
double RecomputeLoad::flops_again(const Node& node) const {
  for (const ValueId id : node.outputs) {
    if (!remade_[index(id)]) continue;
    const Entry& entry = entries_[index(id)];
    return rebuilds_alone(node, id, remade_) ? entry.rebuild_flops : entry.flops;
  }
  return 0;
}

}  // namespace ashlar
