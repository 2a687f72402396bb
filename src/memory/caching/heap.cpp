#include "memory/caching/heap.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "ashlar/error.hpp"

namespace ashlar::detail {
namespace {

std::int64_t rounded(std::int64_t bytes) {
  if (bytes > INT64_MAX / 2) return INT64_MAX / 2;
  if (bytes <= kLargestSmall) return round_to_class(std::max<std::int64_t>(bytes, 1));
  return align_up(bytes, kLargeStep);
}

void check(const CachingOptions& options, std::int64_t page) {
  if (page < 4096 || !std::has_single_bit(static_cast<std::uint64_t>(page)))
    throw InvalidArgument(fmt::format(
        "{}: pages of {} B; they are a power of two of at least 4 KiB", options.name, page));
  const auto require = [&](bool holds, std::string_view what) {
    if (!holds) throw InvalidArgument(fmt::format("{}: {}", options.name, what));
  };
  require(options.limit_bytes >= 0, "limit_bytes is negative");
  require(options.slack >= 0, "slack is negative");
  require(options.segment_bytes > 0, "segment_bytes is not positive");
  require(options.range_bytes > 0, "range_bytes is not positive");
  require(options.history >= 0, "history is negative");
}

}  // namespace

CachingHeap::CachingHeap(PageSource& source, CachingOptions options)
    : source_(source), options_(std::move(options)), page_(source.page_bytes()), streams_(source) {
  check(options_, page_);
  history_.reserve(static_cast<std::size_t>(options_.history));
}

CachingHeap::~CachingHeap() {
  for (const Range& range : ranges_) {
    for (Block* block = range.first; block != nullptr; block = block->next)
      if (!block->is(BlockState::unmapped) && options_.expandable) {
        // Mapped stretches begin and end on pages; blocks in them do not.
        Block* last = block;
        while (last->next != nullptr && !last->next->is(BlockState::unmapped)) last = last->next;
        source_.unmap(block->begin, last->end() - block->begin);
        block = last;
      }
    if (!options_.expandable) source_.unmap(range.begin, range.bytes);
    source_.release(range.begin, range.bytes);
  }
}

std::uint32_t CachingHeap::stream_of(StreamRef ref) {
  const std::uint32_t stream = streams_.index_of(ref);
  while (bins_.size() <= stream) bins_.push_back(std::make_unique<std::array<Bins, kPools>>());
  return stream;
}

void* CachingHeap::allocate(std::int64_t bytes, Category category, StreamRef stream) {
  const Request request{static_cast<std::uint8_t>(bytes > kLargestSmall), stream_of(stream),
                        rounded(bytes)};
  live_.reserve_one();
  Block* block = (*bins_[request.stream])[request.pool].best_fit(request.bytes);
  if (block == nullptr) block = find_elsewhere(request);
  return block == nullptr ? nullptr : hand_out(block, request, bytes, category);
}

void* CachingHeap::hand_out(Block* block, const Request& request, std::int64_t bytes,
                            Category category) {
  Block* rest = block->bytes > request.bytes ? store_.take() : nullptr;
  bins_of(*block).remove(block);
  if (rest != nullptr) {
    cut(block, request.bytes, rest);
    bins_of(*rest).insert(rest);
  }
  block->state = BlockState::live;
  block->stream = request.stream;
  block->category = category;
  block->requested = bytes;
  live_.insert(block);
  statistics_.live[static_cast<std::size_t>(category)] += bytes;
  statistics_.live_bytes += bytes;
  statistics_.peak_live_bytes = std::max(statistics_.peak_live_bytes, statistics_.live_bytes);
  ++statistics_.allocations;
  if (options_.history > 0) note(true, *block);
  return block->begin;
}

bool CachingHeap::deallocate(void* pointer, std::int64_t bytes, StreamRef stream) noexcept {
  Block* block = live_.extract(pointer);
  if (block == nullptr || block->requested != bytes) return false;
  const std::uint32_t freeing = stream_of(stream);
  if (options_.history > 0) note(false, *block);
  statistics_.live[static_cast<std::size_t>(block->category)] -= bytes;
  statistics_.live_bytes -= bytes;
  const bool crosses = block->stream != freeing;
  block->stream = freeing;
  block->ticket = streams_.next_ticket(freeing);
  block->state = BlockState::free;
  if (crosses) streams_.mark(freeing);
  release(block);
  return true;
}

/// Puts a block that was freed just now into a bin, joined with free neighbours that its stream may
/// use: their ends lie before its own, and its ticket is the stream's latest.
void CachingHeap::release(Block* block) noexcept {
  const auto joins = [&](const Block* other) {
    return other != nullptr && other->is(BlockState::free) &&
           streams_.usable(*other, block->stream);
  };
  if (Block* next = block->next; joins(next)) {
    bins_of(*next).remove(next);
    absorb_next(block);
  }
  if (Block* previous = block->previous; joins(previous)) {
    bins_of(*previous).remove(previous);
    previous->ticket = block->ticket;
    previous->stream = block->stream;
    absorb_next(previous);
    block = previous;
  }
  bins_of(*block).insert(block);
}

/// `rest` becomes what lies behind the first `bytes` of a block that is in no bin.
void CachingHeap::cut(Block* block, std::int64_t bytes, Block* rest) noexcept {
  *rest = *block;
  rest->begin = block->begin + bytes;
  rest->bytes = block->bytes - bytes;
  rest->previous = block;
  if (rest->next != nullptr) rest->next->previous = rest;
  block->next = rest;
  block->bytes = bytes;
}

void CachingHeap::absorb_next(Block* block) noexcept {
  Block* next = block->next;
  block->bytes += next->bytes;
  block->next = next->next;
  if (block->next != nullptr) block->next->previous = block;
  store_.give_back(next);
}

void CachingHeap::note(bool allocate, const Block& block) noexcept {
  const HistoryEntry entry{allocate, block.category, block.stream, block.begin, block.requested};
  if (static_cast<std::int64_t>(history_.size()) < options_.history)
    history_.push_back(entry);
  else
    history_[static_cast<std::size_t>(noted_ % options_.history)] = entry;
  ++noted_;
}

std::vector<HistoryEntry> CachingHeap::history() const {
  std::vector<HistoryEntry> entries = history_;
  if (!entries.empty())
    std::ranges::rotate(entries, entries.begin() + noted_ % std::ssize(entries));
  return entries;
}

CachingStatistics CachingHeap::statistics() const {
  CachingStatistics result = statistics_;
  result.events = streams_.events();
  result.orderings = streams_.orderings();
  for (const auto& pools : bins_)
    for (const Bins& bins : *pools)
      if (const Block* block = bins.largest())
        result.largest_free_block = std::max(result.largest_free_block, block->bytes);
  return result;
}

}  // namespace ashlar::detail
