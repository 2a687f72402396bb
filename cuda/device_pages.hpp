// A device's memory as CachingResource wants it.
#pragma once

#include "cuda/driver.hpp"
#include "memory/caching/evented_pages.hpp"

namespace ashlar::cuda {

/// Pages of the driver's allocation granularity (2 MiB), each its own physical allocation, so that
/// any of them can move to other addresses.
class VirtualPages final : public detail::EventedPages {
 public:
  VirtualPages(int device, const Driver& driver);

  std::int64_t page_bytes() const override { return page_bytes_; }
  std::byte* reserve(std::int64_t bytes) override;
  void release(std::byte* begin, std::int64_t bytes) noexcept override;
  bool map(std::byte* begin, std::int64_t bytes) override;
  void unmap(std::byte* begin, std::int64_t bytes) noexcept override;

 private:
  bool map_page(CUdeviceptr address);

  int device_;
  const Driver& driver_;
  CUmemAllocationProp properties_{};
  std::int64_t page_bytes_;
};

/// Segments of cudaMalloc, whose addresses and memory come and go together.
class SegmentPages final : public detail::EventedPages {
 public:
  explicit SegmentPages(int device) : device_(device) {}

  std::int64_t page_bytes() const override { return std::int64_t{2} << 20; }
  std::byte* reserve(std::int64_t bytes) override;
  void release(std::byte* begin, std::int64_t bytes) noexcept override;
  bool map(std::byte*, std::int64_t) override { return true; }
  void unmap(std::byte*, std::int64_t) noexcept override {}

 private:
  int device_;
};

}  // namespace ashlar::cuda
