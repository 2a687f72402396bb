// Pages that no stream uses any more go back to their source, or to where they are needed.
#include <algorithm>

#include "memory/caching/heap.hpp"

namespace ashlar::detail {

/// Whether `bytes` more pages may be mapped, after garbage collection if need be. Pages within
/// `keep` stay.
bool CachingHeap::make_room(std::int64_t bytes, const Request& request, const Window& keep) {
  const auto over = [&](std::int64_t ceiling) {
    return statistics_.reserved_bytes - std::max<std::int64_t>(ceiling - bytes, 0);
  };
  if (options_.expandable) {
    const std::int64_t excess = over(soft_ceiling(request));
    if (excess > 0) moved_ += collect(excess, keep);
  }
  if (over(options_.limit_bytes) > 0) collect(over(options_.limit_bytes), keep);
  return bytes <= options_.limit_bytes && over(options_.limit_bytes) <= 0;
}

/// Above it pages move before more are taken. What moved lifts it, so that a program that repeats
/// itself stops moving.
std::int64_t CachingHeap::soft_ceiling(const Request& request) const {
  const std::int64_t peak =
      std::max(statistics_.peak_live_bytes, statistics_.live_bytes + request.bytes);
  const double ceiling = static_cast<double>(peak) * (1 + options_.slack) +
                         static_cast<double>(4 * page_ + moved_ / 4);
  return ceiling < 0x1p62 ? static_cast<std::int64_t>(ceiling) : INT64_MAX;
}

/// Gives back up to `wanted` bytes, rounded up to pages or segments, of free memory that is no
/// longer in use.
std::int64_t CachingHeap::collect(std::int64_t wanted, const Window& keep) {
  streams_.poll_all();
  if (!options_.expandable) return drop_segments(wanted);
  std::int64_t given = 0;
  for (const Range& range : ranges_)
    if (given < wanted) given += collect_from(range, wanted - given, keep);
  return given;
}

std::int64_t CachingHeap::collect_from(const Range& range, std::int64_t wanted,
                                       const Window& keep) {
  std::int64_t given = 0;
  for (Block* block = range.first; block != nullptr && given < wanted; block = block->next) {
    if (!idle(block)) continue;
    join_idle(block);
    if (block->begin < keep.end && block->end() > keep.begin) continue;
    const std::int64_t begin = align_up(block->begin - range.begin, page_);
    const std::int64_t end = (block->end() - range.begin) / page_ * page_;
    const std::int64_t bytes = std::min(end - begin, align_up(wanted - given, page_));
    if (bytes <= 0) continue;
    std::byte* cut_begin = range.begin + end - bytes;
    if (block->end() > cut_begin + bytes) split(block, cut_begin + bytes - block->begin);
    if (block->begin < cut_begin) block = split(block, cut_begin - block->begin);
    block = unmap(block);
    given += bytes;
  }
  return given;
}

bool CachingHeap::idle(const Block* block) const noexcept {
  return block != nullptr && block->is(BlockState::free) && streams_.complete(*block);
}

/// Joins an idle block with idle blocks behind it, whichever streams freed them.
void CachingHeap::join_idle(Block* block) noexcept {
  if (!idle(block->next)) return;
  bins_of(*block).remove(block);
  block->ticket = 0;
  while (idle(block->next)) {
    bins_of(*block->next).remove(block->next);
    absorb_next(block);
  }
  bins_of(*block).insert(block);
}

std::int64_t CachingHeap::drop_segments(std::int64_t wanted) {
  std::int64_t given = 0;
  std::erase_if(ranges_, [&](const Range& range) {
    Block* block = range.first;
    if (given >= wanted || !idle(block)) return false;
    join_idle(block);
    if (block->next != nullptr) return false;
    store_.give_back(unmap(block));
    source_.release(range.begin, range.bytes);
    ++statistics_.source_calls;
    given += range.bytes;
    return true;
  });
  return given;
}

std::int64_t CachingHeap::trim() {
  streams_.wait_all();
  return collect(INT64_MAX / 2, {});
}

}  // namespace ashlar::detail
