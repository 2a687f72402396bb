// Where a request goes when no single block fits: neighbours that are free for any stream or have
// no pages yet, chosen so that the fewest pages are mapped.
#include <algorithm>
#include <tuple>

#include "memory/caching/heap.hpp"

namespace ashlar::detail {

bool CachingHeap::available(const Block* block, const Request& request, bool may_order) const {
  if (block == nullptr || block->is(BlockState::live)) return false;
  return block->is(BlockState::unmapped) || may_order || streams_.usable(*block, request.stream);
}

/// The window with the fewest pages to map, then the least memory of other streams; then, where
/// pages are mapped anyway, the one that joins the most free memory to them, else the tightest.
CachingHeap::Window CachingHeap::find_window(const Request& request, bool may_order) const {
  const auto cost = [&](const Window& w) {
    const std::int64_t bytes = w.end - w.begin;
    return std::tuple(w.map_bytes, w.foreign_bytes, w.map_bytes > 0 ? -bytes : bytes);
  };
  Window best;
  for (const Range& range : ranges_) {
    if (range.pool != request.pool) continue;
    for (Block* block = range.first; block != nullptr; block = block->next) {
      if (!available(block, request, may_order)) continue;
      const Window window = window_from(block, request, may_order);
      if (window.first != nullptr && (best.first == nullptr || cost(window) < cost(best)))
        best = window;
    }
  }
  return best;
}

/// The shortest window that begins in `first`; none when the next live block comes too early.
CachingHeap::Window CachingHeap::window_from(Block* first, const Request& request,
                                             bool may_order) const {
  Window window;
  std::int64_t total = 0;
  for (Block* block = first; available(block, request, may_order); block = block->next) {
    total += block->bytes;
    if (block->is(BlockState::unmapped))
      window.map_bytes += block->bytes;
    else if (!streams_.usable(*block, request.stream))
      window.foreign_bytes += block->bytes;
    if (total < request.bytes) continue;

    std::int64_t excess = (total - request.bytes) / page_ * page_;
    window.first = first;
    window.last = block;
    window.begin = first->begin;
    window.end = block->end();
    if (block->is(BlockState::unmapped)) {
      const std::int64_t left_out = std::min(excess, block->bytes - page_);
      window.end -= left_out;
      window.map_bytes -= left_out;
      excess -= left_out;
    }
    if (block != first && excess >= first->bytes) return {};  // a later window is better
    if (block != first && first->is(BlockState::unmapped)) {
      window.begin += excess;
      window.map_bytes -= excess;
    }
    return window;
  }
  return {};
}

}  // namespace ashlar::detail
