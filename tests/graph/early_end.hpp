// What a plan does with a buffer that ends before the wait of a collective that works on it: its
// bytes go to a buffer that a kernel makes meanwhile.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "ashlar/error.hpp"
#include "graph/program.hpp"

namespace ashlar {

/// True when a value lies in buffer `b` of the plan.
inline bool lies_in(const Program& program, ValueId id, std::size_t b) {
  if (id == kNoValue) return false;
  const int buffer = program.storage.places[static_cast<std::size_t>(id)].buffer;
  return program.storage.buffers[static_cast<std::size_t>(buffer)].root ==
         program.placed[b].first.root;
}

/// The steps of a program beside the buffers of its plan.
class EarlyEnds {
 public:
  explicit EarlyEnds(const Program& program) : program_(program) {}

  int tried = 0;
  std::string unseen;  // races that were not told, one line each

  /// Ends every buffer that dies at a wait behind the start instead, and gives its bytes to the
  /// first buffer that a kernel writes in between: a race between these two.
  void try_all(int ranks) {
    for (int wait = 0; wait < static_cast<int>(program_.steps.size()); ++wait) {
      if (step(wait).kind != Instruction::Kind::wait) continue;
      const int start = start_of(wait);
      for (std::size_t b = 0; b < program_.placed.size(); ++b) {
        if (program_.placed[b].first.last != wait + 1 || !uses(start, b)) continue;
        const int taker = made_between(start, wait, program_.placed[b].first.bytes);
        if (taker >= 0) give_away(b, start, static_cast<std::size_t>(taker), ranks);
      }
    }
  }

  /// Buffers that end before the wait of a collective that works on them.
  int ending_in_flight() const {
    int count = 0;
    for (int wait = 0; wait < static_cast<int>(program_.steps.size()); ++wait) {
      if (step(wait).kind != Instruction::Kind::wait) continue;
      for (std::size_t b = 0; b < program_.placed.size(); ++b)
        count += uses(wait, b) && program_.placed[b].first.last <= wait ? 1 : 0;
    }
    return count;
  }

 private:
  const Step& step(int i) const { return program_.steps[static_cast<std::size_t>(i)]; }
  const Node& node(int i) const {
    return program_.graph.nodes[static_cast<std::size_t>(step(i).node)];
  }

  int start_of(int wait) const {
    int i = wait;
    while (step(i).kind != Instruction::Kind::start || step(i).node != step(wait).node) --i;
    return i;
  }

  /// True when an operand of the step begins where the buffer does.
  bool uses(int i, std::size_t b) const {
    const auto begins = [&](const std::vector<ValueId>& ids, const std::vector<Operand>& operands) {
      for (std::size_t v = 0; v < ids.size(); ++v)
        if (lies_in(program_, ids[v], b) && operands[v].offset == program_.placed[b].second)
          return true;
      return false;
    };
    return begins(node(i).inputs, step(i).inputs) || begins(node(i).outputs, step(i).outputs);
  }

  /// A buffer of at most `bytes` that a kernel writes first, from its beginning, as it does its
  /// workspace.
  int made_between(int start, int wait, std::int64_t bytes) const {
    for (std::size_t b = 0; b < program_.placed.size(); ++b) {
      const StorageBuffer& buffer = program_.placed[b].first;
      if (buffer.first <= start || buffer.first >= wait || buffer.bytes > bytes) continue;
      if (step(buffer.first).kind != Instruction::Kind::run) continue;
      if (node(buffer.first).op->view != nullptr) continue;
      if (buffer.root == kNoValue || uses(buffer.first, b)) return static_cast<int>(b);
    }
    return -1;
  }

  void give_away(std::size_t b, int start, std::size_t taker, int ranks) {
    Program mutant = program_;
    mutant.placed[b].first.last = start + 1;
    mutant.placed[taker].second = program_.placed[b].second;
    const Space space =
        program_.placed[b].first.window ? Space::transient_window : Space::transient;
    const int maker = program_.placed[taker].first.first;
    Operand& workspace = mutant.steps[static_cast<std::size_t>(maker)].workspace;
    if (program_.placed[taker].first.root == kNoValue) {
      workspace.space = space;
      workspace.offset = program_.placed[b].second;
    }
    for (Step& moved : mutant.steps) {
      const Node& used = program_.graph.nodes[static_cast<std::size_t>(moved.node)];
      const auto move = [&](const std::vector<ValueId>& ids, std::vector<Operand>& operands) {
        for (std::size_t v = 0; v < ids.size(); ++v) {
          if (!lies_in(program_, ids[v], taker)) continue;
          operands[v].space = space;
          operands[v].offset += program_.placed[b].second - program_.placed[taker].second;
        }
      };
      move(used.inputs, moved.inputs);
      move(used.outputs, moved.outputs);
    }
    const std::string race =
        fmt::format("node {} ({}) touches bytes of node {} ({})", step(maker).node,
                    node(maker).op->name, step(start).node, node(start).op->name);
    ++tried;
    try {
      detect_races(mutant, ranks);
      unseen += race + "\n";
    } catch (const Error& error) {
      if (std::string(error.what()).find(race) == std::string::npos)
        unseen += race + ", but: " + error.what() + "\n";
    }
  }

  const Program& program_;
};

}  // namespace ashlar
