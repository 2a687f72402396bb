#include "emulator/memory_map.hpp"

#include <fmt/core.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace emulator {
namespace {

constexpr std::size_t kLarge = std::size_t{1} << 20;

struct Registry {
  std::mutex mutex;
  std::vector<Region> regions;
};

Registry& registry() {
  static Registry instance;
  return instance;
}

std::byte* find_stain(const std::byte* begin, const std::byte* end, std::byte paint) {
  const auto* at = std::find_if(begin, end, [paint](std::byte b) { return b != paint; });
  return at == end ? nullptr : const_cast<std::byte*>(at);
}

/// A file of `bytes` bytes of 0xff or more. Mapped privately, pages that nobody touches cost
/// nothing.
int undefined_file(std::size_t bytes) {
  struct File {
    int descriptor = ::memfd_create("undefined", MFD_CLOEXEC);
    std::size_t size = 0;
  };
  static File file;
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  for (const std::vector<std::byte> more(kLarge, std::byte{0xff}); file.size < bytes;
       file.size += more.size())
    if (::write(file.descriptor, more.data(), more.size()) != static_cast<ssize_t>(more.size()))
      throw std::bad_alloc();
  return file.descriptor;
}

/// Fills a mapping of whole pages, which may be large, with 0xff.
void make_undefined(std::byte* begin, std::size_t bytes) {
  if (bytes < kLarge) {
    std::fill(begin, begin + bytes, std::byte{0xff});
  } else if (::mmap(begin, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
                    undefined_file(bytes), 0) == MAP_FAILED) {
    throw std::bad_alloc();
  }
}

}  // namespace

std::byte paint_of(Order order) {
  switch (order.kind) {
    case Order::Kind::ascending:
      return std::byte{0x7a};
    case Order::Kind::descending:
      return std::byte{0x79};
    case Order::Kind::shuffled:
      break;
  }
  return static_cast<std::byte>(0x70 + order.seed % 8);
}

GuardedMemory::GuardedMemory(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t rounded = (bytes + 15) / 16 * 16;
  const std::size_t inner = (rounded + 64 + page - 1) / page * page;
  void* raw = ::mmap(nullptr, inner + 2 * page, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  auto* base = static_cast<std::byte*>(raw);
  if (::mprotect(base + page, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  region_ = {.reserved_begin = base,
             .margin_begin = base + page,
             .begin = base + page + inner - rounded,
             .end = base + page + inner - rounded + bytes,
             .margin_end = base + page + inner,
             .reserved_end = base + page + inner + page,
             .paint = paint_of(current_order())};
  make_undefined(base + page, inner);
  std::fill(region_.margin_begin, region_.begin, region_.paint);
  std::fill(region_.end, region_.margin_end, region_.paint);
  const std::scoped_lock lock(registry().mutex);
  registry().regions.push_back(region_);
}

GuardedMemory::~GuardedMemory() {
  {
    const std::scoped_lock lock(registry().mutex);
    std::erase_if(registry().regions, [&](const Region& r) { return r.begin == region_.begin; });
  }
  ::munmap(region_.reserved_begin,
           static_cast<std::size_t>(region_.reserved_end - region_.reserved_begin));
}

std::vector<Region> regions() {
  const std::scoped_lock lock(registry().mutex);
  return registry().regions;
}

std::string whereabouts(const std::vector<Region>& regions, const void* address) {
  const auto* at = static_cast<const std::byte*>(address);
  for (const Region& r : regions) {
    if (at < r.reserved_begin || at >= r.reserved_end) continue;
    const auto bytes = r.end - r.begin;
    if (at >= r.end)
      return fmt::format("{} bytes past the end of a buffer of {} bytes", at - r.end, bytes);
    if (at < r.begin)
      return fmt::format("{} bytes before a buffer of {} bytes", r.begin - at, bytes);
    return fmt::format("at byte {} of a buffer of {} bytes", at - r.begin, bytes);
  }
  return {};
}

std::string damage() {
  const std::scoped_lock lock(registry().mutex);  // other threads' memory stays while it is read
  const std::vector<Region>& regions = registry().regions;
  for (const Region& r : regions) {
    const std::byte* stain = find_stain(r.margin_begin, r.begin, r.paint);
    if (stain == nullptr) stain = find_stain(r.end, r.margin_end, r.paint);
    if (stain != nullptr) return whereabouts(regions, stain);
  }
  return {};
}

}  // namespace emulator
