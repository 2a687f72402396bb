#include "graph/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>

#include "ashlar/error.hpp"
#include "graph/rank_groups.hpp"

namespace ashlar {
namespace {

using Kind = Instruction::Kind;

bool prefetched(const Node& node) { return node.attributes.has("prefetch"); }

/// The node before which each collective starts: itself, or earlier for prefetched gathers.
std::vector<int> start_positions(const Graph& graph, int prefetch) {
  std::vector<int> position(graph.nodes.size());
  std::vector<int> gathers;
  for (int n = 0; n < static_cast<int>(graph.nodes.size()); ++n) {
    const Node& node = graph.nodes[static_cast<std::size_t>(n)];
    position[static_cast<std::size_t>(n)] = n;
    if (node.op->start == nullptr || !prefetched(node)) continue;
    gathers.push_back(n);
    const int ahead = std::min<int>(prefetch, static_cast<int>(gathers.size()) - 1);
    int earliest = gathers[gathers.size() - 1 - static_cast<std::size_t>(ahead)];
    for (const ValueId id : node.inputs) {
      if (id != kNoValue) earliest = std::max(earliest, graph[id].producer + 1);
    }
    while (graph.nodes[static_cast<std::size_t>(earliest)].section != node.section) ++earliest;
    position[static_cast<std::size_t>(n)] = earliest;
  }
  return position;
}

class Scheduler {
 public:
  Scheduler(const Graph& graph, const ScheduleOptions& options) : graph_(graph), options_(options) {
    const auto position = start_positions(graph, options.overlap ? options.prefetch : 0);
    starts_.resize(graph.nodes.size());
    for (std::size_t n = 0; n < position.size(); ++n) {
      if (graph.nodes[n].op->start != nullptr)
        starts_[static_cast<std::size_t>(position[n])].push_back(static_cast<int>(n));
    }
  }

  std::vector<Instruction> run() {
    for (int n = 0; n < static_cast<int>(graph_.nodes.size()); ++n) {
      if (n > 0 && node(n).section != node(n - 1).section) drain();
      for (const int collective : starts_[static_cast<std::size_t>(n)]) start(collective);
      if (node(n).op->start != nullptr) continue;
      for (const ValueId id : node(n).inputs) wait_for(id);
      instructions_.push_back({Kind::run, n});
    }
    drain();
    return std::move(instructions_);
  }

 private:
  const Node& node(int n) const { return graph_.nodes[static_cast<std::size_t>(n)]; }

  void start(int n) {
    for (const ValueId id : node(n).inputs) wait_for(id);
    if (!prefetched(node(n))) {  // these run one after the other, among the same ranks
      const std::deque<int> flying = flying_;
      for (const int f : flying) {
        if (!prefetched(node(f)) && among_of(node(f)) == among_of(node(n))) wait(f);
      }
    }
    instructions_.push_back({Kind::start, n});
    flying_.push_back(n);
    if (!options_.overlap) wait(n);
  }

  /// Waits for the collective that makes `id`, if it is in flight.
  void wait_for(ValueId id) {
    if (id == kNoValue) return;
    const int producer = graph_[id].producer;
    if (std::find(flying_.begin(), flying_.end(), producer) != flying_.end()) wait(producer);
  }

  void wait(int n) {
    instructions_.push_back({Kind::wait, n});
    std::erase(flying_, n);
  }

  void drain() {
    while (!flying_.empty()) wait(flying_.front());
  }

  const Graph& graph_;
  ScheduleOptions options_;
  std::vector<std::vector<int>> starts_;
  std::vector<Instruction> instructions_;
  std::deque<int> flying_;
};

}  // namespace

std::vector<Instruction> schedule(const Graph& graph, const ScheduleOptions& options) {
  return Scheduler(graph, options).run();
}

void validate(const Graph& graph, const std::vector<Instruction>& instructions) {
  std::vector<int> state(graph.nodes.size(), 0);  // 0 not begun, 1 in flight, 2 done
  const auto fail = [&](int n, const char* what) {
    throw Error(fmt::format("schedule: node {} ({}) {}", n,
                            graph.nodes[static_cast<std::size_t>(n)].op->name, what));
  };
  for (const Instruction& instruction : instructions) {
    int& now = state[static_cast<std::size_t>(instruction.node)];
    const Node& node = graph.nodes[static_cast<std::size_t>(instruction.node)];
    if (instruction.kind == Kind::wait) {
      if (now != 1) fail(instruction.node, "is waited for before it starts");
      now = 2;
      continue;
    }
    if (now != 0) fail(instruction.node, "is issued twice");
    for (const ValueId id : node.inputs) {
      if (id == kNoValue || graph[id].producer < 0) continue;
      if (state[static_cast<std::size_t>(graph[id].producer)] != 2)
        fail(instruction.node, "reads a value that is not ready");
    }
    now = instruction.kind == Kind::start ? 1 : 2;
  }
  for (std::size_t n = 0; n < state.size(); ++n) {
    if (state[n] != 2) fail(static_cast<int>(n), "never completes");
  }
}

}  // namespace ashlar
