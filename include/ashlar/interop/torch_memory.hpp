// libtorch's CPU tensors in memory of Ashlar. Link ashlar::torch.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <memory>
#include <new>

#include "ashlar/caching_resource.hpp"

namespace ashlar::torch {

/// Serves libtorch from a CachingResource over host_pages().
class CpuAllocator final : public c10::Allocator {
 public:
  CachingResource& cache() const { return cache_; }

  // Debian's libtorch 1.13 overrides the first, newer ones the second and the third.
  at::DataPtr allocate(std::size_t bytes) const { return serve(bytes); }
  at::DataPtr allocate(std::size_t bytes) { return serve(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const {
    std::memcpy(to, from, bytes);
  }
  at::DeleterFnPtr raw_deleter() const override { return &free; }

 private:
  /// Lies in front of each tensor's memory: libtorch frees by the pointer alone.
  struct alignas(kAlignment) Header {
    CachingResource* cache;
    std::int64_t bytes;  // with the header
  };

  at::DataPtr serve(std::size_t size) const {
    if (size == 0) return {nullptr, at::kCPU};
    const auto bytes = static_cast<std::int64_t>(size + sizeof(Header));
    void* const begin = cache_.allocate(bytes, Category::activation);
    void* const data = new (begin) Header{&cache_, bytes} + 1;
    return {data, data, &free, at::kCPU};
  }
  static void free(void* data) {
    if (data == nullptr) return;
    auto* const header = static_cast<Header*>(data) - 1;
    header->cache->deallocate(header, header->bytes, Category::activation);
  }

  std::unique_ptr<PageSource> pages_ = host_pages();
  mutable CachingResource cache_{*pages_, {.name = "libtorch's tensors"}};
};

/// From here on libtorch's CPU tensors, gradients and activations among them, come from a cache
/// that keeps freed memory in huge pages for the next tensor: later steps take no page faults, and
/// what is held stays within 1 % of what tensors held at most, where malloc is the worse for
/// fragments. Call it before the model is built; it stays for the rest of the process.
/// @return the cache, for its statistics. @throws OutOfMemory from libtorch's calls when the system
/// has no pages left.
inline CachingResource& cache_cpu_memory() {
  static CpuAllocator* const allocator = [] {
    auto* const installed = new CpuAllocator;  // tensors may outlive everything else
    c10::SetCPUAllocator(installed);
    return installed;
  }();
  return allocator->cache();
}

}  // namespace ashlar::torch
