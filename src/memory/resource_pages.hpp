// Any resource as what a caching allocator takes its segments from.
#pragma once

#include <map>

#include "ashlar/caching_resource.hpp"

namespace ashlar {

/// Segments of `upstream`, for CachingOptions::expandable off: a reservation has its pages at once.
/// No work outlives the call that enqueued it, so events have always happened.
class ResourcePages final : public PageSource {
 public:
  /// @param upstream outlives the source and serves any thread
  ResourcePages(MemoryResource& upstream, Category category)
      : upstream_(upstream), category_(category) {}

  std::int64_t page_bytes() const override { return kPage; }
  std::byte* reserve(std::int64_t bytes) override;
  void release(std::byte* begin, std::int64_t bytes) noexcept override;
  bool map(std::byte*, std::int64_t) override { return true; }
  void unmap(std::byte*, std::int64_t) noexcept override {}
  EventId record(StreamRef) override { return 0; }
  bool done(EventId) noexcept override { return true; }
  void order(StreamRef, EventId) override {}
  void wait(EventId) noexcept override {}
  void forget(EventId) noexcept override {}

 private:
  static constexpr std::int64_t kPage = 4096;

  MemoryResource& upstream_;
  Category category_;
  std::map<std::byte*, void*> blocks_;  // by aligned begin: as upstream gave it
};

}  // namespace ashlar
