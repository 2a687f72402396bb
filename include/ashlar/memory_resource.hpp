// Memory by composition: a resource serves bytes, adaptors wrap a resource and add one property.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "ashlar/category.hpp"
#include "ashlar/device.hpp"

namespace ashlar {

/// Every pointer a resource returns is a multiple of this (a cache line, and a vector register).
inline constexpr std::int64_t kAlignment = 64;

/// Rounds up to a multiple of `alignment` (a power of two).
constexpr std::int64_t align_up(std::int64_t bytes, std::int64_t alignment = kAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

/// Allocates and frees bytes in the order of a stream: memory freed on a stream may be handed out
/// again to work that comes later on that stream. Thread-safe. Contents are unspecified.
class MemoryResource {
 public:
  virtual ~MemoryResource() = default;

  /// @param bytes at least 0; 0 gives a unique non-null pointer. @param category for statistics and
  /// error messages.
  /// @throws OutOfMemory; the resource is then as it was.
  void* allocate(std::int64_t bytes, Category category, StreamRef stream = {}) {
    return do_allocate(bytes, category, stream);
  }
  /// @param bytes, category as given to allocate. Never throws.
  void deallocate(void* pointer, std::int64_t bytes, Category category,
                  StreamRef stream = {}) noexcept {
    do_deallocate(pointer, bytes, category, stream);
  }

 protected:
  MemoryResource() = default;
  MemoryResource(const MemoryResource&) = default;
  MemoryResource& operator=(const MemoryResource&) = default;

 private:
  virtual void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) = 0;
  virtual void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                             StreamRef stream) noexcept = 0;
};

/// The host's memory, page-aligned with huge pages advised for large blocks. Process-wide and
/// stateless.
MemoryResource& host_memory();

/// Bytes that the system says can be taken without swapping: /proc/meminfo's, or what the control
/// groups of this process leave when that is less; a very large number where neither says.
std::int64_t available_host_bytes();

/// Serves from one block taken upstream at construction, front to back; freeing the last allocation
/// rewinds, freeing anything else is remembered until the arena is empty. Work that frees on a
/// stream ends before the arena does.
class ArenaResource final : public MemoryResource {
 public:
  ArenaResource(MemoryResource& upstream, std::int64_t bytes, Category category);
  ~ArenaResource() override;
  ArenaResource(const ArenaResource&) = delete;
  ArenaResource& operator=(const ArenaResource&) = delete;

  std::int64_t capacity() const { return bytes_; }
  std::int64_t used() const;

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override;
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override;
  void release(std::byte* pointer, std::int64_t bytes, Category category) noexcept;

  MemoryResource& upstream_;
  std::int64_t bytes_;
  Category category_;
  std::byte* base_;
  mutable std::mutex mutex_;
  std::int64_t used_ = 0;
  std::int64_t live_ = 0;
  PerCategory<std::int64_t> held_{};
};

/// Refuses requests that would take the live bytes over a limit.
class LimitAdaptor final : public MemoryResource {
 public:
  LimitAdaptor(MemoryResource& upstream, std::int64_t limit_bytes)
      : upstream_(upstream), limit_(limit_bytes) {}

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override;
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override;

  MemoryResource& upstream_;
  std::int64_t limit_;
  std::mutex mutex_;
  PerCategory<std::int64_t> live_{};
};

/// Counts live and peak bytes by category, as requested (before alignment).
class StatisticsAdaptor final : public MemoryResource {
 public:
  explicit StatisticsAdaptor(MemoryResource& upstream) : upstream_(upstream) {}

  PerCategory<std::int64_t> live() const;
  /// Each category's own maximum.
  PerCategory<std::int64_t> peak() const;
  /// Maximum of the sum.
  std::int64_t peak_total() const;
  std::int64_t allocations() const;

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override;
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override;

  MemoryResource& upstream_;
  mutable std::mutex mutex_;
  PerCategory<std::int64_t> live_{};
  PerCategory<std::int64_t> peak_{};
  std::int64_t live_total_ = 0;
  std::int64_t peak_total_ = 0;
  std::int64_t allocations_ = 0;
};

/// "parameter 1.2 GiB, activation 310 MiB, ...": the holders, largest first, for error messages.
std::string describe(const PerCategory<std::int64_t>& bytes);

/// "1.50 GiB", "64 B".
std::string format_bytes(std::int64_t bytes);

/// Bytes of "123", "64 B", "4KiB", "1.5MiB" or "2 GiB": a non-negative number, rounded to whole
/// bytes, and a binary unit up to EiB. @throws InvalidArgument quoting the text.
std::int64_t parse_bytes(std::string_view text);

}  // namespace ashlar
