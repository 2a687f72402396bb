// When a stream has no block of its own that fits.
#include <algorithm>

#include "memory/caching/heap.hpp"

namespace ashlar::detail {

/// A free block of at least the request, in a bin and safe for its stream; null when out of memory.
/// Waits for the device only in the last of three attempts.
Block* CachingHeap::find_elsewhere(const Request& request) {
  if (request.bytes > options_.limit_bytes) return nullptr;
  streams_.poll_others(request.stream);
  const auto attempt = [&](bool may_order) {
    Block* block = from_other_stream(request, may_order);
    return block != nullptr ? block : from_window(request, may_order);
  };
  if (Block* block = attempt(options_.order_streams)) return block;
  collect(request.bytes, {});
  if (Block* block = attempt(true)) return block;
  streams_.wait_all();
  collect(request.bytes, {});
  return attempt(true);
}

/// The best single block: first what needs no ordering, then the smallest.
Block* CachingHeap::from_other_stream(const Request& request, bool may_order) {
  Block* best = nullptr;
  bool best_usable = false;
  for (std::uint32_t stream = 0; stream < bins_.size(); ++stream) {
    Block* block = (*bins_[stream])[request.pool].best_fit(request.bytes);
    if (block == nullptr) continue;
    const bool usable = streams_.usable(*block, request.stream);
    if (!usable && !may_order) continue;
    if (best == nullptr || usable > best_usable ||
        (usable == best_usable && block->bytes < best->bytes)) {
      best = block;
      best_usable = usable;
    }
  }
  if (best != nullptr) streams_.order(request.stream, *best);
  return best;
}

Block* CachingHeap::from_window(const Request& request, bool may_order) {
  Window window = find_window(request, may_order);
  if (window.first == nullptr) {
    if (!add_range(request)) return nullptr;
    window = find_window(request, may_order);
    if (window.first == nullptr) return nullptr;
  }
  if (window.map_bytes > 0) {
    if (!make_room(window.map_bytes, request, window)) return nullptr;
    window = find_window(request, may_order);  // blocks may have been joined
    if (window.map_bytes > options_.limit_bytes - statistics_.reserved_bytes) return nullptr;
  }
  return realise(window, request);
}

/// Maps what is unmapped, orders the stream after the others and joins all to one block. Null when
/// the source has no pages; what it gave before stays as free blocks.
Block* CachingHeap::realise(const Window& window, const Request& request) {
  Block* first = window.first;
  Block* last = window.last;
  for (Block* block = first;; block = block->next) {
    if (block->is(BlockState::free)) streams_.order(request.stream, *block);
    if (block == last) break;
  }
  if (last->end() > window.end && last->is(BlockState::unmapped))
    split(last, window.end - last->begin);
  if (first->begin < window.begin) {
    const bool only = first == last;
    first = split(first, window.begin - first->begin);
    if (only) last = first;
  }
  bool complete = true;
  for (Block* block = first;; block = block->next) {
    if (block->is(BlockState::unmapped) && !map(block, request.stream)) return nullptr;
    complete = complete && streams_.complete(*block);
    if (block == last) break;
  }
  const std::byte* end = last->end();
  bins_of(*first).remove(first);
  while (first->end() != end) {
    bins_of(*first->next).remove(first->next);
    absorb_next(first);
  }
  first->stream = request.stream;
  first->ticket = complete ? 0 : streams_.next_ticket(request.stream);
  bins_of(*first).insert(first);
  return first;
}

/// Cuts a block, free or unmapped, in two of the same kind. @return the second.
Block* CachingHeap::split(Block* block, std::int64_t bytes) {
  Block* rest = store_.take();
  const bool in_bin = block->is(BlockState::free);
  if (in_bin) bins_of(*block).remove(block);
  cut(block, bytes, rest);
  if (in_bin) {
    bins_of(*block).insert(block);
    bins_of(*rest).insert(rest);
  }
  return rest;
}

bool CachingHeap::map(Block* block, std::uint32_t stream) {
  ++statistics_.source_calls;
  if (!source_.map(block->begin, block->bytes)) {
    join_unmapped(block);
    return false;
  }
  statistics_.reserved_bytes += block->bytes;
  statistics_.peak_reserved_bytes =
      std::max(statistics_.peak_reserved_bytes, statistics_.reserved_bytes);
  block->state = BlockState::free;
  block->stream = stream;
  block->ticket = 0;
  bins_of(*block).insert(block);
  return true;
}

/// Takes the pages of a free block. @return the unmapped block that it became a part of.
Block* CachingHeap::unmap(Block* block) noexcept {
  bins_of(*block).remove(block);
  source_.unmap(block->begin, block->bytes);
  ++statistics_.source_calls;
  statistics_.reserved_bytes -= block->bytes;
  block->state = BlockState::unmapped;
  return join_unmapped(block);
}

Block* CachingHeap::join_unmapped(Block* block) noexcept {
  if (block->next != nullptr && block->next->is(BlockState::unmapped)) absorb_next(block);
  Block* previous = block->previous;
  if (previous == nullptr || !previous->is(BlockState::unmapped)) return block;
  absorb_next(previous);
  return previous;
}

bool CachingHeap::add_range(const Request& request) {
  if (!options_.expandable) return add_segment(request);
  const std::int64_t least = align_up(request.bytes, page_);
  for (std::int64_t bytes = std::max(align_up(options_.range_bytes, page_), least); bytes >= least;
       bytes = align_up(bytes / 4, page_)) {
    ++statistics_.source_calls;
    if (std::byte* begin = source_.reserve(bytes)) {
      adopt(begin, bytes, request.pool);
      return true;
    }
    if (bytes == page_) break;
  }
  return false;
}

/// A range that is mapped as a whole: segment_bytes or, where they do not fit, what is needed.
bool CachingHeap::add_segment(const Request& request) {
  const std::int64_t least = align_up(request.bytes, page_);
  const std::int64_t usual = align_up(options_.segment_bytes, page_);
  // A request of more than half a segment gets one of its own size.
  for (const std::int64_t bytes : {request.bytes > usual / 2 ? least : usual, least}) {
    if (!make_room(bytes, request, {})) continue;
    ++statistics_.source_calls;
    std::byte* begin = source_.reserve(bytes);
    if (begin == nullptr) continue;
    Range& range = adopt(begin, bytes, request.pool);
    if (map(range.first, request.stream)) return true;
    store_.give_back(range.first);
    source_.release(begin, bytes);
    ranges_.pop_back();
  }
  return false;
}

Range& CachingHeap::adopt(std::byte* begin, std::int64_t bytes, std::uint8_t pool) {
  Block* block = nullptr;
  try {
    ranges_.reserve(ranges_.size() + 1);
    block = store_.take();
  } catch (...) {
    source_.release(begin, bytes);
    throw;
  }
  block->begin = begin;
  block->bytes = bytes;
  block->pool = pool;
  ranges_.push_back({begin, bytes, pool, block});
  return ranges_.back();
}

}  // namespace ashlar::detail
