// The plan in the forms that memory viewers read.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "ashlar/error.hpp"
#include "memory/caching/pickle.hpp"
#include "report/step_report.hpp"

namespace ashlar {
namespace {

/// A block comes (at its first step) or goes (after its last); what goes makes room first.
struct Change {
  int step;
  bool begins;
  std::size_t block;
};

std::vector<Change> events_of(const std::vector<PlannedBlock>& blocks, int end) {
  std::vector<Change> events;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    if (blocks[b].bytes == 0) continue;
    events.push_back({blocks[b].first, true, b});
    const bool state = blocks[b].maker == nullptr && blocks[b].kind.empty();
    if (!state && blocks[b].last <= end) events.push_back({blocks[b].last, false, b});
  }
  std::ranges::stable_sort(events, {}, [](const Change& e) { return std::pair(e.step, e.begins); });
  return events;
}

/// Spaces lie far apart.
std::int64_t base_of(Space space) { return (static_cast<std::int64_t>(space) + 1) << 48; }

void write_frames(detail::PickleWriter& out, const PlannedBlock& block) {
  out.text("frames");
  out.begin_list();
  out.begin_dict();
  out.entry("name", block.name);
  out.entry("filename",
            block.maker != nullptr ? block.maker->where.file_name() : std::string_view("state"));
  out.entry("line", block.maker != nullptr ? block.maker->where.line() : 0);
  out.end_dict();
  out.end_list();
}

void write_event(detail::PickleWriter& out, const PlannedBlock& block, std::string_view action,
                 int step) {
  out.begin_dict();
  out.entry("action", action);
  out.entry("addr", base_of(block.space) + block.offset);
  out.entry("size", block.bytes);
  out.entry("stream", 0);
  out.entry("time_us", step);  // instructions are counted, not timed
  out.entry("category", name_of(block.category));
  write_frames(out, block);
  out.end_dict();
}

void write_segment(detail::PickleWriter& out, const CompiledStep& step,
                   const std::vector<PlannedBlock>& blocks, Space space) {
  const std::int64_t total = step.arena_bytes()[static_cast<std::size_t>(space)];
  if (total == 0) return;
  std::int64_t live = 0;
  std::vector<const PlannedBlock*> states;
  for (const PlannedBlock& block : blocks) {
    if (block.space != space || block.bytes == 0 || block.maker != nullptr || !block.kind.empty())
      continue;
    states.push_back(&block);
    live += block.bytes;
  }
  std::ranges::sort(states, {}, &PlannedBlock::offset);
  out.begin_dict();
  out.entry("device", 0);
  out.entry("address", base_of(space));
  out.entry("total_size", total);
  out.entry("allocated_size", live);
  out.entry("active_size", live);
  out.entry("requested_size", live);
  out.entry("stream", 0);
  out.entry("segment_type", "large");
  out.text("is_expandable");
  out.boolean(false);
  out.text("blocks");
  out.begin_list();
  std::int64_t end = 0;
  const auto write_block = [&](std::int64_t begin, std::int64_t bytes, const PlannedBlock* block) {
    out.begin_dict();
    out.entry("address", base_of(space) + begin);
    out.entry("size", bytes);
    out.entry("requested_size", block != nullptr ? bytes : 0);
    out.entry("state", block != nullptr ? "active_allocated" : "inactive");
    if (block != nullptr) {
      write_frames(out, *block);
    } else {
      out.text("frames");
      out.begin_list();
      out.end_list();
    }
    out.end_dict();
  };
  for (const PlannedBlock* block : states) {
    if (block->offset > end) write_block(end, block->offset - end, nullptr);
    write_block(block->offset, block->bytes, block);
    end = block->offset + block->bytes;
  }
  if (end < total) write_block(end, total - end, nullptr);
  out.end_list();
  out.end_dict();
}

}  // namespace

Trace planned_trace(const CompiledStep& step) {
  const std::vector<PlannedBlock> blocks = planned_blocks(step);
  Trace trace;
  std::map<std::string, std::uint32_t> names;
  std::vector<std::size_t> allocated(blocks.size());
  for (const Change& event : events_of(blocks, static_cast<int>(step.programs[0].steps.size()))) {
    const PlannedBlock& block = blocks[event.block];
    if (!event.begins) {
      const TraceOperation begun = trace.operations[allocated[event.block]];
      trace.free(begun, 0);
      continue;
    }
    const auto [name, fresh] =
        names.emplace(block.name, static_cast<std::uint32_t>(trace.names.size()));
    if (fresh) trace.names.push_back(block.name);
    allocated[event.block] = trace.operations.size();
    trace.allocate(block.bytes, block.category, 0, name->second);
  }
  return trace;
}

void write_planned_snapshot(const CompiledStep& step, const std::filesystem::path& path) {
  const std::vector<PlannedBlock> blocks = planned_blocks(step);
  detail::PickleWriter out;
  out.begin_dict();
  out.text("segments");
  out.begin_list();
  for (int s = 0; s < kSpaces; ++s) write_segment(out, step, blocks, static_cast<Space>(s));
  out.end_list();
  out.text("device_traces");
  out.begin_list();
  out.begin_list();
  for (const Change& event : events_of(blocks, static_cast<int>(step.programs[0].steps.size()))) {
    const PlannedBlock& block = blocks[event.block];
    if (event.begins) {
      write_event(out, block, "alloc", event.step);
    } else {
      write_event(out, block, "free_requested", event.step);
      write_event(out, block, "free_completed", event.step);
    }
  }
  out.end_list();
  out.end_list();
  out.end_dict();
  std::ofstream file(path, std::ios::binary);
  file << out.take() << std::flush;
  if (!file)
    throw InvalidArgument(fmt::format("{}: the snapshot cannot be written", path.string()));
}

}  // namespace ashlar
