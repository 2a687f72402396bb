// The caching allocator: stream-ordered best fit over pages that it keeps. One algorithm serves
// every kind of memory; what differs is behind PageSource.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "ashlar/memory_resource.hpp"

namespace ashlar {

/// What the caching allocator needs of a kind of memory: addresses apart from pages, and events.
/// CachingResource calls it under its lock, one call at a time.
class PageSource {
 public:
  /// A point in a stream, valid from record to forget.
  using EventId = std::uint64_t;

  virtual ~PageSource() = default;

  /// Bytes of a page, a power of two of at least 4 KiB: what follows takes multiples of it.
  virtual std::int64_t page_bytes() const = 0;
  /// Addresses without memory, aligned to pages; null when refused.
  virtual std::byte* reserve(std::int64_t bytes) = 0;
  /// Gives back a reservation as reserve returned it, with no pages in it.
  virtual void release(std::byte* begin, std::int64_t bytes) noexcept = 0;
  /// Puts pages under reserved addresses. @return false, with nothing mapped, when out of memory.
  virtual bool map(std::byte* begin, std::int64_t bytes) = 0;
  /// Takes the pages away; no device work uses them any more.
  virtual void unmap(std::byte* begin, std::int64_t bytes) noexcept = 0;

  /// An event that happens once everything enqueued on `stream` so far is done. @throws Error.
  virtual EventId record(StreamRef stream) = 0;
  virtual bool done(EventId event) noexcept = 0;
  /// Later work on `stream` runs after the event; the caller does not wait. @throws Error.
  virtual void order(StreamRef stream, EventId event) = 0;
  /// Blocks the caller until the event has happened: the last resort before out-of-memory.
  virtual void wait(EventId event) noexcept = 0;
  virtual void forget(EventId event) noexcept = 0;
};

/// The host's memory in pages of 2 MiB, with events of CPU streams.
std::unique_ptr<PageSource> host_pages();

struct CachingOptions {
  /// In error messages and snapshots.
  std::string name = "cache";
  /// Pages are mapped one by one into a wide range of addresses; else the cache grows by segments
  /// that come and go whole.
  bool expandable = true;
  /// Pages never exceed this.
  std::int64_t limit_bytes = INT64_MAX;
  /// While pages stay below (1 + slack) x the peak of live bytes the cache grows; above it, it
  /// first moves pages that are free elsewhere (expandable only).
  double slack = 0.01;
  /// Memory freed on one stream and still in use there may serve another stream, which is then
  /// ordered after it on the device. Off: the cache grows instead, as far as it may.
  bool order_streams = true;
  /// The least growth when not expandable.
  std::int64_t segment_bytes = std::int64_t{32} << 20;
  /// Addresses reserved at a time when expandable.
  std::int64_t range_bytes = std::int64_t{256} << 30;
  /// Called before out-of-memory, without a lock, with the bytes requested: frees what it can and
  /// says whether to try again.
  std::function<bool(std::int64_t bytes)> retry = {};
  /// The last so many operations are kept for the snapshot.
  std::int64_t history = 0;
};

struct CachingStatistics {
  PerCategory<std::int64_t> live{};  // bytes as requested
  std::int64_t live_bytes = 0;
  std::int64_t peak_live_bytes = 0;
  std::int64_t reserved_bytes = 0;  // pages mapped
  std::int64_t peak_reserved_bytes = 0;
  std::int64_t largest_free_block = 0;
  std::int64_t allocations = 0;   // served
  std::int64_t source_calls = 0;  // reserve, release, map and unmap
  std::int64_t events = 0;        // recorded
  std::int64_t orderings = 0;     // streams ordered after another for reuse
};

namespace detail {
struct LockedHeap;
}

/// Keeps freed memory for the next request. Best fit with splitting and coalescing in two pools,
/// small blocks (up to 1 MiB, rounded to size classes) and large ones (rounded to 4 KiB).
///
/// Stream order: allocate(stream) returns memory for work enqueued on `stream` afterwards;
/// deallocate(stream) promises that all uses are enqueued on `stream` or ordered before what is.
/// The caller never waits for the device, except just before out-of-memory. Both are called from
/// outside of streams, not from work that runs on one. A stream that ends while the resource lives
/// is announced by `retire`.
///
/// Thread-safe. A pointer freed twice or never allocated aborts with one line: deallocate cannot
/// throw. The same calls in the same order give the same placement if events answer alike.
class CachingResource final : public MemoryResource {
 public:
  /// @param source outlives the resource. @throws InvalidArgument for options out of range.
  explicit CachingResource(PageSource& source, CachingOptions options = {});
  /// All memory must be free and all work on it done.
  ~CachingResource() override;
  CachingResource(const CachingResource&) = delete;
  CachingResource& operator=(const CachingResource&) = delete;

  CachingStatistics statistics() const;
  /// Waits until no stream uses what is free, then gives back its pages. @return their bytes.
  std::int64_t trim();
  /// `stream` is empty and about to end: what was freed on it is everybody's.
  void retire(StreamRef stream);
  /// Writes what torch.cuda._memory_viz and https://pytorch.org/memory_viz load: the ranges, their
  /// blocks, and the last operations. @throws InvalidArgument naming the file.
  void dump_snapshot(const std::filesystem::path& path) const;

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override;
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override;

  std::unique_ptr<detail::LockedHeap> heap_;
};

}  // namespace ashlar
