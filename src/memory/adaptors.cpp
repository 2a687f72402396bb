// LimitAdaptor and StatisticsAdaptor. Both count in issue order: a free counts when it is called,
// whatever its stream.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "memory/out_of_memory.hpp"

namespace ashlar {
namespace {

std::int64_t sum(const PerCategory<std::int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
}

}  // namespace

void* LimitAdaptor::do_allocate(std::int64_t bytes, Category category, StreamRef stream) {
  detail::check_request(bytes, category);
  const auto index = static_cast<std::size_t>(category);
  {
    const std::scoped_lock lock(mutex_);
    if (bytes > limit_ - sum(live_))
      detail::throw_out_of_memory(
          bytes, category,
          fmt::format("of the limit of {}, {} are held by {}", format_bytes(limit_),
                      format_bytes(sum(live_)), describe(live_)),
          "raise the limit, use a smaller batch or more ranks");
    live_[index] += bytes;
  }
  try {
    return upstream_.allocate(bytes, category, stream);
  } catch (...) {
    const std::scoped_lock lock(mutex_);
    live_[index] -= bytes;
    throw;
  }
}

void LimitAdaptor::do_deallocate(void* pointer, std::int64_t bytes, Category category,
                                 StreamRef stream) noexcept {
  upstream_.deallocate(pointer, bytes, category, stream);
  const std::scoped_lock lock(mutex_);
  live_[static_cast<std::size_t>(category)] -= bytes;
}

void* StatisticsAdaptor::do_allocate(std::int64_t bytes, Category category, StreamRef stream) {
  void* pointer = nullptr;
  try {
    pointer = upstream_.allocate(bytes, category, stream);
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(fmt::format("{} (held so far: {})", error.what(), describe(live())));
  }
  const std::scoped_lock lock(mutex_);
  const auto index = static_cast<std::size_t>(category);
  live_[index] += bytes;
  live_total_ += bytes;
  peak_[index] = std::max(peak_[index], live_[index]);
  peak_total_ = std::max(peak_total_, live_total_);
  ++allocations_;
  return pointer;
}

void StatisticsAdaptor::do_deallocate(void* pointer, std::int64_t bytes, Category category,
                                      StreamRef stream) noexcept {
  upstream_.deallocate(pointer, bytes, category, stream);
  const std::scoped_lock lock(mutex_);
  live_[static_cast<std::size_t>(category)] -= bytes;
  live_total_ -= bytes;
}

PerCategory<std::int64_t> StatisticsAdaptor::live() const {
  const std::scoped_lock lock(mutex_);
  return live_;
}

PerCategory<std::int64_t> StatisticsAdaptor::peak() const {
  const std::scoped_lock lock(mutex_);
  return peak_;
}

std::int64_t StatisticsAdaptor::peak_total() const {
  const std::scoped_lock lock(mutex_);
  return peak_total_;
}

std::int64_t StatisticsAdaptor::allocations() const {
  const std::scoped_lock lock(mutex_);
  return allocations_;
}

}  // namespace ashlar
