// The allocator's state in the form that torch.cuda._memory_viz reads: one segment per stretch of
// mapped pages, and the last operations as a trace. Names of keys: torch.cuda.memory._snapshot.
#include <fmt/format.h>

#include <fstream>
#include <mutex>

#include "ashlar/error.hpp"
#include "memory/caching/locked_heap.hpp"
#include "memory/caching/pickle.hpp"

namespace ashlar {
namespace detail {
namespace {

std::int64_t address(const std::byte* at) { return reinterpret_cast<std::intptr_t>(at); }

/// Categories stand where stack frames would.
void write_frames(PickleWriter& out, Category category) {
  out.text("frames");
  out.begin_list();
  out.begin_dict();
  out.entry("name", name_of(category));
  out.entry("filename", "ashlar");
  out.entry("line", 0);
  out.end_dict();
  out.end_list();
}

void write_block(PickleWriter& out, const Block& block, bool pending) {
  const bool live = block.is(BlockState::live);
  out.begin_dict();
  out.entry("address", address(block.begin));
  out.entry("size", block.bytes);
  out.entry("requested_size", live ? block.requested : 0);
  out.entry("state", live ? "active_allocated" : pending ? "active_pending_free" : "inactive");
  if (live) {
    write_frames(out, block.category);
  } else {
    out.text("frames");
    out.begin_list();
    out.end_list();
  }
  out.end_dict();
}

/// Writes the blocks from `first` to the next unmapped one. @return that one; null at the end.
const Block* write_segment(PickleWriter& out, const Block* first, const CachingHeap& heap) {
  std::int64_t total = 0, live = 0, pending = 0, requested = 0;
  const auto is_pending = [&](const Block& block) {
    return block.is(BlockState::free) && !heap.streams().complete(block);
  };
  const Block* end = first;
  for (; end != nullptr && !end->is(BlockState::unmapped); end = end->next) {
    total += end->bytes;
    if (end->is(BlockState::live)) {
      live += end->bytes;
      requested += end->requested;
    }
    if (is_pending(*end)) pending += end->bytes;
  }
  out.begin_dict();
  out.entry("device", 0);
  out.entry("address", address(first->begin));
  out.entry("total_size", total);
  out.entry("allocated_size", live);
  out.entry("active_size", live + pending);
  out.entry("requested_size", requested);
  out.entry("stream", first->stream);
  out.entry("segment_type", first->pool == 0 ? "small" : "large");
  out.text("is_expandable");
  out.boolean(heap.options().expandable);
  out.text("blocks");
  out.begin_list();
  for (const Block* block = first; block != end; block = block->next)
    write_block(out, *block, is_pending(*block));
  out.end_list();
  out.end_dict();
  return end;
}

void write_operation(PickleWriter& out, const HistoryEntry& entry, std::string_view action,
                     std::int64_t number) {
  out.begin_dict();
  out.entry("action", action);
  out.entry("addr", address(entry.begin));
  out.entry("size", entry.bytes);
  out.entry("stream", entry.stream);
  out.entry("time_us", number);  // operations are counted, not timed
  out.entry("category", name_of(entry.category));
  write_frames(out, entry.category);
  out.end_dict();
}

void write_history(PickleWriter& out, const CachingHeap& heap) {
  std::int64_t number = 0;
  for (const HistoryEntry& entry : heap.history()) {
    ++number;
    if (entry.allocate) {
      write_operation(out, entry, "alloc", number);
    } else {
      write_operation(out, entry, "free_requested", number);
      write_operation(out, entry, "free_completed", number);
    }
  }
}

std::string snapshot(const CachingHeap& heap) {
  PickleWriter out;
  out.begin_dict();
  out.text("segments");
  out.begin_list();
  for (const Range& range : heap.ranges())
    for (const Block* block = range.first; block != nullptr;)
      block = block->is(BlockState::unmapped) ? block->next : write_segment(out, block, heap);
  out.end_list();
  out.text("device_traces");
  out.begin_list();
  out.begin_list();
  write_history(out, heap);
  out.end_list();
  out.end_list();
  out.text("allocator_settings");
  out.begin_dict();
  out.entry("name", heap.options().name);
  out.text("expandable_segments");
  out.boolean(heap.options().expandable);
  out.end_dict();
  out.end_dict();
  return out.take();
}

}  // namespace
}  // namespace detail

void CachingResource::dump_snapshot(const std::filesystem::path& path) const {
  std::string bytes;
  {
    const std::scoped_lock lock(heap_->mutex);
    bytes = detail::snapshot(heap_->heap);
  }
  std::ofstream file(path, std::ios::binary);
  file << bytes << std::flush;
  if (!file)
    throw InvalidArgument(fmt::format("{}: the snapshot cannot be written", path.string()));
}

}  // namespace ashlar
