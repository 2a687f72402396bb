// The host as a source of pages: reservations are mappings without access, pages come with the
// first touch.
#include <sys/mman.h>

#include "memory/caching/evented_pages.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kHugePage = std::int64_t{2} << 20;

std::size_t size(std::int64_t bytes) { return static_cast<std::size_t>(bytes); }

class HostPages final : public detail::EventedPages {
 public:
  std::int64_t page_bytes() const override { return kHugePage; }

  std::byte* reserve(std::int64_t bytes) override {
    if (bytes > INT64_MAX - kHugePage) return nullptr;
    void* raw = ::mmap(nullptr, size(bytes + kHugePage), PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) return nullptr;
    auto* begin = static_cast<std::byte*>(raw);
    const auto address = reinterpret_cast<std::intptr_t>(raw);
    const std::int64_t skipped = align_up(address, kHugePage) - address;
    if (skipped > 0) ::munmap(begin, size(skipped));
    ::munmap(begin + skipped + bytes, size(kHugePage - skipped));
    return begin + skipped;
  }
  void release(std::byte* begin, std::int64_t bytes) noexcept override {
    ::munmap(begin, size(bytes));
  }
  bool map(std::byte* begin, std::int64_t bytes) override {
    if (::mprotect(begin, size(bytes), PROT_READ | PROT_WRITE) != 0) return false;
    ::madvise(begin, size(bytes), MADV_HUGEPAGE);
    return true;
  }
  void unmap(std::byte* begin, std::int64_t bytes) noexcept override {
    ::madvise(begin, size(bytes), MADV_DONTNEED);
    ::mprotect(begin, size(bytes), PROT_NONE);
  }
};

}  // namespace

std::unique_ptr<PageSource> host_pages() { return std::make_unique<HostPages>(); }

}  // namespace ashlar
