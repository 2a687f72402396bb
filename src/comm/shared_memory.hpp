// Memory that processes of one node share: a file that lives in memory alone, mapped by all, and a
// resource that serves allocations from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "ashlar/memory_resource.hpp"

namespace ashlar::detail {

/// One mapping. The maker names it to other processes by its process and descriptor.
class SharedMemory {
 public:
  SharedMemory() = default;
  /// Makes `bytes` of zeros; pages take room when first touched. @throws OutOfMemory.
  static SharedMemory make(const std::string& name, std::int64_t bytes);
  /// Maps another process's. @throws OutOfMemory.
  static SharedMemory open(int process, int descriptor, std::int64_t bytes);
  ~SharedMemory();
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;

  /// Backs the huge pages that lie in [first, first + bytes), which nobody has written, by huge
  /// pages, where the kernel can and has some left: translations then cost loads and stores less.
  void prefer_huge_pages(std::int64_t first, std::int64_t bytes) const;

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  int descriptor() const { return descriptor_; }

 private:
  void map(std::int64_t bytes);

  int descriptor_ = -1;
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// Serves from [first, end) of a shared memory, lowest fitting hole first, on huge pages where
/// possible; what is freed goes back to the system.
class SharedResource final : public MemoryResource {
 public:
  SharedResource(const SharedMemory& memory, std::int64_t first);

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override;
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override;

  const SharedMemory& memory_;
  std::mutex mutex_;
  std::map<std::int64_t, std::int64_t> holes_;  // offset to length
};

}  // namespace ashlar::detail
