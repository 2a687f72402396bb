#include "report/footprint.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace ashlar {
namespace {

std::string labelled(const Graph& graph, const Node& node) {
  const std::string_view unit =
      node.unit >= 0 ? graph.units[static_cast<std::size_t>(node.unit)] : std::string_view();
  return fmt::format("{}{}{}", unit, unit.empty() ? "" : " ", node.op->name);
}

/// The node whose output the whole buffer is; of a workspace, the one that runs.
const Node* maker_of(const Program& program, const StorageBuffer& buffer) {
  const Graph& graph = program.graph;
  if (buffer.kind == InputKind::data) return nullptr;
  const int node = buffer.root != kNoValue
                       ? graph[buffer.root].producer
                       : program.steps[static_cast<std::size_t>(buffer.first)].node;
  return &graph.nodes[static_cast<std::size_t>(node)];
}

std::string kind_of(const StorageBuffer& buffer, const Node& maker) {
  const bool head = maker.op->name.starts_with("linear_cross_entropy");
  if (buffer.root == kNoValue) return head ? "logits" : fmt::format("{} workspace", maker.op->name);
  if (buffer.category == Category::gathered_parameter) return "gather buffers";
  if (buffer.category == Category::communication && maker.op->name == "pack")
    return "gradient buckets";
  return std::string(maker.op->name);
}

PlannedBlock transient(const Program& program, const StorageBuffer& buffer, std::int64_t offset) {
  PlannedBlock block;
  block.category = buffer.category;
  block.space = buffer.window ? Space::transient_window : Space::transient;
  block.offset = offset;
  block.bytes = buffer.bytes;
  block.first = buffer.first;
  block.last = buffer.last;
  block.maker = maker_of(program, buffer);
  if (block.maker == nullptr) {
    block.name = block.kind = program.graph[buffer.root].name;
    return block;
  }
  block.unit = block.maker->unit;
  block.kind = kind_of(buffer, *block.maker);
  block.name = labelled(program.graph, *block.maker);
  if (buffer.root == kNoValue) block.name += " workspace";
  return block;
}

/// The most of each kind at any instant, by a sweep over begins and ends.
std::map<std::string, std::int64_t> largest_by_kind(const std::vector<PlannedBlock>& blocks) {
  std::map<std::string, std::map<int, std::int64_t>> changes;
  for (const PlannedBlock& block : blocks) {
    if (block.kind.empty() || block.bytes == 0) continue;
    changes[block.kind][block.first] += block.bytes;
    changes[block.kind][block.last] -= block.bytes;
  }
  std::map<std::string, std::int64_t> largest;
  for (const auto& [kind, steps] : changes) {
    std::int64_t now = 0;
    for (const auto& [step, bytes] : steps) {
      now += bytes;
      largest[kind] = std::max(largest[kind], now);
    }
  }
  return largest;
}

}  // namespace

std::vector<PlannedBlock> planned_blocks(const CompiledStep& step) {
  const Program& program = step.programs[0];
  const int end = static_cast<int>(program.steps.size());
  std::vector<PlannedBlock> blocks;
  std::map<std::string_view, int> unit_of;  // of flats
  for (const Flat& flat : step.layout.flats()) unit_of.emplace(flat.name, flat.unit);
  for (const auto& [name, state] : step.states.entries()) {
    const auto unit = unit_of.find(std::string_view(name).substr(0, name.rfind('/')));
    blocks.push_back({name, "", state.category, state.space, state.offset, state.type.bytes(), 0,
                      end, nullptr, unit != unit_of.end() ? unit->second : -1});
  }
  for (const auto& [buffer, offset] : program.placed)
    if (buffer.last > buffer.first) blocks.push_back(transient(program, buffer, offset));
  return blocks;
}

Footprint footprint(const CompiledStep& step) {
  const Program& program = step.programs[0];
  Footprint result;
  result.parameters = step.layout.elements();
  result.ranks = step.ranks();
  result.group = step.layout.ranks();
  const auto states = step.states.by_category();
  const auto of = [&](Category category) { return states[static_cast<std::size_t>(category)]; };
  result.model_state = {of(Category::parameter), of(Category::gradient),
                        of(Category::optimizer_state)};
  result.peak = step.planned();
  result.peak_index = planned_peak(program, step.states).step;
  const Step& busiest = program.steps[static_cast<std::size_t>(result.peak_index)];
  result.peak_op =
      labelled(program.graph, program.graph.nodes[static_cast<std::size_t>(busiest.node)]);
  const std::vector<PlannedBlock> blocks = planned_blocks(step);
  for (const PlannedBlock& block : blocks)
    if (block.bytes > 0 && block.first <= result.peak_index && result.peak_index < block.last)
      result.at_peak.push_back(block);
  std::ranges::stable_sort(result.at_peak, std::greater(), &PlannedBlock::bytes);
  result.transients = largest_by_kind(blocks);
  result.sent = sent_bytes(step);
  return result;
}

}  // namespace ashlar
