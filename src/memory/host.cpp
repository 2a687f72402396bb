// The host's memory: malloc for small blocks, anonymous mappings on huge pages for large ones.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "ashlar/memory_resource.hpp"
#include "memory/control_group.hpp"
#include "memory/out_of_memory.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kHugePage = std::int64_t{2} << 20;
constexpr std::int64_t kPage = 4096;
constexpr std::int64_t kLargest = INT64_MAX - 2 * kHugePage;

constexpr bool is_mapped(std::int64_t bytes) { return bytes >= kHugePage; }

void unmap(std::byte* begin, const std::byte* end) noexcept {
  if (begin != end) ::munmap(begin, static_cast<std::size_t>(end - begin));
}

/// A mapping that starts on a huge page; null when the system refuses.
void* map_huge(std::int64_t bytes) {
  const std::int64_t length = align_up(bytes, kPage);
  void* raw = ::mmap(nullptr, static_cast<std::size_t>(length + kHugePage), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(raw);
  const auto address = reinterpret_cast<std::intptr_t>(raw);
  std::byte* aligned = begin + (align_up(address, kHugePage) - address);
  unmap(begin, aligned);
  unmap(aligned + length, begin + length + kHugePage);
  ::madvise(aligned, static_cast<std::size_t>(length), MADV_HUGEPAGE);
  return aligned;
}

void free_host(void* pointer, std::int64_t bytes) noexcept {
  if (is_mapped(bytes)) {
    auto* begin = static_cast<std::byte*>(pointer);
    unmap(begin, begin + align_up(bytes, kPage));
  } else {
    std::free(pointer);
  }
}

class HostMemory final : public MemoryResource {
  void* do_allocate(std::int64_t bytes, Category category, StreamRef) override {
    detail::check_request(bytes, category);
    void* pointer = nullptr;
    if (bytes <= kLargest)
      pointer = is_mapped(bytes)
                    ? map_huge(bytes)
                    : std::aligned_alloc(
                          kAlignment,
                          static_cast<std::size_t>(align_up(std::max<std::int64_t>(bytes, 1))));
    if (pointer == nullptr)
      detail::throw_out_of_memory(bytes, category, "the host refused",
                                  "use a smaller model or batch, or more ranks");
    return pointer;
  }

  void do_deallocate(void* pointer, std::int64_t bytes, Category,
                     StreamRef stream) noexcept override {
    stream.enqueue([pointer, bytes] { free_host(pointer, bytes); });
  }
};

}  // namespace

std::int64_t available_host_bytes() { return detail::available_bytes("/"); }

MemoryResource& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace ashlar
