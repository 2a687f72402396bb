#include "graph/program.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "ashlar/error.hpp"
#include "graph/rank_groups.hpp"

namespace ashlar {
namespace {

struct Access {
  Space space;
  std::int64_t begin, end;
  bool write;
};

std::vector<Access> accesses(const Program& program, const Step& step, int rank) {
  std::vector<Access> result;
  if (program.graph.nodes[static_cast<std::size_t>(step.node)].op->view != nullptr) return result;
  const auto add = [&](const Operand& operand, bool write) {
    if (!operand.present) return;
    const std::int64_t begin = operand.offset + rank * operand.rank_stride;
    result.push_back({operand.space, begin, begin + extent_bytes(operand), write});
  };
  for (const Operand& operand : step.inputs) add(operand, false);
  for (const Operand& operand : step.outputs) add(operand, true);
  add(step.workspace, true);
  return result;
}

bool conflict(const std::vector<Access>& a, const std::vector<Access>& b) {
  for (const Access& x : a) {
    for (const Access& y : b) {
      if (x.space == y.space && (x.write || y.write) && x.begin < y.end && y.begin < x.end)
        return true;
    }
  }
  return false;
}

std::string text(const Operand& operand) {
  if (!operand.present) return "-";
  return fmt::format("{}{}@{}+{}+r*{}", name_of(operand.type.dtype), to_string(operand.type.shape),
                     static_cast<int>(operand.space), operand.offset, operand.rank_stride);
}

}  // namespace

std::int64_t extent_bytes(const Operand& operand) {
  std::int64_t last = 0;
  for (int axis = 0; axis < operand.type.shape.rank(); ++axis) {
    if (operand.type.shape[axis] == 0) return 0;
    last += (operand.type.shape[axis] - 1) * operand.strides[axis];
  }
  return (last + 1) * size_of(operand.type.dtype);
}

PeakBytes planned_peak(const Program& program, const StateLayout& states) {
  using Change = std::array<std::int64_t, kCategories + 1>;  // by category, then with alignment
  std::vector<Change> changes(program.steps.size() + 2);     // outputs are read after the last step
  for (const auto& [buffer, offset] : program.placed) {
    if (buffer.last <= buffer.first) continue;
    for (const auto& [at, sign] : {std::pair{buffer.first, 1}, std::pair{buffer.last, -1}}) {
      Change& change = changes[static_cast<std::size_t>(at)];
      change[static_cast<std::size_t>(buffer.category)] += sign * buffer.bytes;
      change[kCategories] += sign * align_up(buffer.bytes);
    }
  }
  PeakBytes result;
  PerCategory<std::int64_t> now = states.by_category();
  const std::int64_t state_bytes = states.bytes(Space::state) + states.bytes(Space::state_window);
  std::int64_t largest = -1, aligned = 0;
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    for (std::size_t c = 0; c < kCategories; ++c) {
      now[c] += changes[i][c];
      result.peak[c] = std::max(result.peak[c], now[c]);
    }
    aligned += changes[i][kCategories];
    const std::int64_t load = std::accumulate(now.begin(), now.end(), std::int64_t{0});
    if (load <= largest) continue;
    largest = load;
    result.at_peak = now;
    result.padding = state_bytes + aligned - load;
    result.step = static_cast<int>(i);
  }
  result.total = state_bytes + program.heights[2] + program.heights[3];
  result.fragmentation = result.total - largest - result.padding;
  return result;
}

void detect_races(const Program& program, int ranks) {
  const auto node_of = [&](int n) -> const Node& {
    return program.graph.nodes[static_cast<std::size_t>(n)];
  };
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<std::pair<int, std::vector<Access>>> flying;
    const auto require_landed = [&] {
      if (flying.empty()) return;
      const int other = flying.front().first;
      throw Error(fmt::format("race on rank {}: nothing waits for node {} ({}) in its section",
                              rank, other, node_of(other).op->name));
    };
    Section section = Section::prologue;
    for (const Step& step : program.steps) {
      const Node& node = node_of(step.node);
      if (node.section != std::exchange(section, node.section)) require_landed();
      if (step.kind == Instruction::Kind::wait) {
        std::erase_if(flying, [&](const auto& entry) { return entry.first == step.node; });
        continue;
      }
      auto mine = accesses(program, step, rank);
      for (const auto& [other, theirs] : flying) {
        // Collectives among the same ranks run one after the other on the communication thread.
        const bool ordered =
            step.kind == Instruction::Kind::start && among_of(node_of(other)) == among_of(node);
        if (!ordered && conflict(mine, theirs)) {
          throw Error(fmt::format(
              "race on rank {}: node {} ({}) touches bytes of node {} ({}) while that is in flight",
              rank, step.node, node.op->name, other, node_of(other).op->name));
        }
      }
      if (step.kind == Instruction::Kind::start) flying.emplace_back(step.node, std::move(mine));
    }
    require_landed();
  }
}

std::vector<std::string> describe(const Program& program) {
  static constexpr std::string_view kKinds[] = {"run", "start", "wait"};
  std::vector<std::string> lines;
  for (const Step& step : program.steps) {
    const Node& node = program.graph.nodes[static_cast<std::size_t>(step.node)];
    std::string line = fmt::format("{} {}", kKinds[static_cast<int>(step.kind)], node.op->name);
    if (const auto label = label_of(program.graph, node); !label.empty())
      line += fmt::format(" {}", label);
    for (const Operand& operand : step.inputs) line += " " + text(operand);
    line += " ->";
    for (const Operand& operand : step.outputs) line += " " + text(operand);
    if (step.workspace.present) line += " workspace " + text(step.workspace);
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace ashlar
