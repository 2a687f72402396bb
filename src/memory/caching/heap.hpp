// The algorithm of the caching allocator, one thread at a time. heap.cpp is the fast path: own
// blocks. growth.cpp is the slow one: other streams' blocks and new pages, with window.cpp, which
// decides where, and collect.cpp, which takes pages that nobody uses from elsewhere.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "ashlar/caching_resource.hpp"
#include "memory/caching/bins.hpp"
#include "memory/caching/block.hpp"
#include "memory/caching/streams.hpp"

namespace ashlar::detail {

/// Blocks up to this live in pages of their own.
inline constexpr std::int64_t kLargestSmall = std::int64_t{1} << 20;
/// Large blocks are multiples of this.
inline constexpr std::int64_t kLargeStep = 4096;

/// Reserved addresses and the blocks in them.
struct Range {
  std::byte* begin = nullptr;
  std::int64_t bytes = 0;
  std::uint8_t pool = 0;
  Block* first = nullptr;
};

struct HistoryEntry {
  bool allocate = false;
  Category category = Category::workspace;
  std::uint32_t stream = 0;
  const std::byte* begin = nullptr;
  std::int64_t bytes = 0;
};

class CachingHeap {
 public:
  CachingHeap(PageSource& source, CachingOptions options);
  ~CachingHeap();
  CachingHeap(const CachingHeap&) = delete;
  CachingHeap& operator=(const CachingHeap&) = delete;

  /// Null when out of memory after garbage collection. @throws what the source throws; the heap is
  /// then as it was, but for pages it may have gained.
  void* allocate(std::int64_t bytes, Category category, StreamRef stream);
  /// @return false when nothing live begins at `pointer`.
  bool deallocate(void* pointer, std::int64_t bytes, StreamRef stream) noexcept;

  std::int64_t trim();
  void retire(StreamRef stream) { streams_.retire(streams_.index_of(stream)); }

  CachingStatistics statistics() const;
  const CachingOptions& options() const { return options_; }
  const std::vector<Range>& ranges() const { return ranges_; }
  const StreamTable& streams() const { return streams_; }
  /// Oldest first.
  std::vector<HistoryEntry> history() const;

 private:
  static constexpr std::size_t kPools = 2;

  /// Neighbouring blocks, none live, that together hold a request.
  struct Window {
    Block* first = nullptr;
    Block* last = nullptr;
    std::byte* begin = nullptr;  // cuts unmapped blocks at both ends, on pages
    std::byte* end = nullptr;
    std::int64_t map_bytes = 0;      // pages to map
    std::int64_t foreign_bytes = 0;  // to be ordered after other streams
  };
  struct Request {
    std::uint8_t pool;
    std::uint32_t stream;
    std::int64_t bytes;  // rounded
  };

  // heap.cpp
  Bins& bins_of(const Block& block) { return (*bins_[block.stream])[block.pool]; }
  std::uint32_t stream_of(StreamRef ref);
  void* hand_out(Block* block, const Request& request, std::int64_t bytes, Category category);
  static void cut(Block* block, std::int64_t bytes, Block* rest) noexcept;
  void absorb_next(Block* block) noexcept;
  void release(Block* block) noexcept;
  void note(bool allocate, const Block& block) noexcept;

  // growth.cpp
  Block* find_elsewhere(const Request& request);
  Block* from_other_stream(const Request& request, bool may_order);
  Block* from_window(const Request& request, bool may_order);
  Block* realise(const Window& window, const Request& request);
  Block* split(Block* block, std::int64_t bytes);
  bool map(Block* block, std::uint32_t stream);
  Block* unmap(Block* block) noexcept;
  Block* join_unmapped(Block* block) noexcept;
  bool add_range(const Request& request);
  bool add_segment(const Request& request);
  Range& adopt(std::byte* begin, std::int64_t bytes, std::uint8_t pool);

  // window.cpp
  bool available(const Block* block, const Request& request, bool may_order) const;
  Window find_window(const Request& request, bool may_order) const;
  Window window_from(Block* first, const Request& request, bool may_order) const;

  // collect.cpp
  bool make_room(std::int64_t bytes, const Request& request, const Window& keep);
  std::int64_t soft_ceiling(const Request& request) const;
  std::int64_t collect(std::int64_t wanted, const Window& keep);
  std::int64_t collect_from(const Range& range, std::int64_t wanted, const Window& keep);
  std::int64_t drop_segments(std::int64_t wanted);
  bool idle(const Block* block) const noexcept;
  void join_idle(Block* block) noexcept;

  PageSource& source_;
  CachingOptions options_;
  std::int64_t page_;
  StreamTable streams_;
  std::vector<std::unique_ptr<std::array<Bins, kPools>>> bins_;  // by stream
  std::vector<Range> ranges_;
  BlockStore store_;
  LiveTable live_;
  CachingStatistics statistics_;
  std::int64_t moved_ = 0;             // bytes of pages taken to be mapped elsewhere
  std::vector<HistoryEntry> history_;  // a ring
  std::int64_t noted_ = 0;
};

}  // namespace ashlar::detail
