#include "memory/resource_pages.hpp"

#include <cstdint>

#include "ashlar/error.hpp"

namespace ashlar {

std::byte* ResourcePages::reserve(std::int64_t bytes) {
  try {
    void* const block = upstream_.allocate(bytes + kPage, category_);
    auto* const begin = static_cast<std::byte*>(block);
    const auto past = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(begin) % kPage);
    std::byte* const aligned = past == 0 ? begin : begin + (kPage - past);
    blocks_.emplace(aligned, block);
    return aligned;
  } catch (const OutOfMemory&) {
    return nullptr;
  }
}

void ResourcePages::release(std::byte* begin, std::int64_t bytes) noexcept {
  const auto found = blocks_.find(begin);
  upstream_.deallocate(found->second, bytes + kPage, category_);
  blocks_.erase(found);
}

}  // namespace ashlar
