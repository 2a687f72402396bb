// The public face: the lock, what is refused, and what is said when memory is out.
#include "ashlar/caching_resource.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <mutex>

#include "ashlar/error.hpp"
#include "memory/caching/locked_heap.hpp"
#include "memory/out_of_memory.hpp"

namespace ashlar {
namespace {

std::string remedies(const CachingOptions& options, const CachingStatistics& s) {
  std::string text;
  const auto add = [&](bool applies, std::string_view what) {
    if (applies) text += fmt::format("{}{}", text.empty() ? "" : ", ", what);
  };
  const std::int64_t idle = s.reserved_bytes - s.live_bytes;
  add(!options.expandable && idle > s.live_bytes / 10,
      "set expandable (much of what is reserved lies in pieces)");
  add(options.limit_bytes != INT64_MAX,
      fmt::format("raise the limit of {}", format_bytes(options.limit_bytes)));
  add(!options.retry, "free what can be rebuilt in a retry callback");
  add(true, "use a smaller batch, recomputation or more ranks");
  return text;
}

[[noreturn]] void out_of_memory(std::int64_t bytes, Category category,
                                const CachingOptions& options, const CachingStatistics& s) {
  detail::throw_out_of_memory(
      bytes, category,
      fmt::format("{}: {} live, {} reserved, largest free block {}, held by {}", options.name,
                  format_bytes(s.live_bytes), format_bytes(s.reserved_bytes),
                  format_bytes(s.largest_free_block), describe(s.live)),
      remedies(options, s));
}

}  // namespace

CachingResource::CachingResource(PageSource& source, CachingOptions options)
    : heap_(std::make_unique<detail::LockedHeap>(source, std::move(options))) {}

CachingResource::~CachingResource() = default;

void* CachingResource::do_allocate(std::int64_t bytes, Category category, StreamRef stream) {
  detail::check_request(bytes, category);
  for (;;) {
    {
      const std::scoped_lock lock(heap_->mutex);
      if (void* pointer = heap_->heap.allocate(bytes, category, stream)) return pointer;
    }
    const CachingOptions& options = heap_->heap.options();
    if (!options.retry || !options.retry(bytes))
      out_of_memory(bytes, category, options, statistics());
  }
}

void CachingResource::do_deallocate(void* pointer, std::int64_t bytes, Category category,
                                    StreamRef stream) noexcept {
  {
    const std::scoped_lock lock(heap_->mutex);
    if (heap_->heap.deallocate(pointer, bytes, stream)) return;
  }
  fmt::print(stderr, "{}: free of {} ({} B, {}), which is not live or has another size\n",
             heap_->heap.options().name, fmt::ptr(pointer), bytes, name_of(category));
  std::terminate();
}

CachingStatistics CachingResource::statistics() const {
  const std::scoped_lock lock(heap_->mutex);
  return heap_->heap.statistics();
}

std::int64_t CachingResource::trim() {
  const std::scoped_lock lock(heap_->mutex);
  return heap_->heap.trim();
}

void CachingResource::retire(StreamRef stream) {
  const std::scoped_lock lock(heap_->mutex);
  heap_->heap.retire(stream);
}

}  // namespace ashlar
