#include "cuda/device_pages.hpp"

#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "cuda/current_device.hpp"

namespace ashlar {
namespace cuda {
namespace {

CUdeviceptr address_of(const std::byte* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

/// False when there was no memory, for pages or for their tables.
bool took(CUresult status) {
  if (status != CUDA_ERROR_OUT_OF_MEMORY) check(status);
  return status == CUDA_SUCCESS;
}

}  // namespace

VirtualPages::VirtualPages(int device, const Driver& driver) : device_(device), driver_(driver) {
  properties_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties_.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
  std::size_t granularity = 0;
  check(driver_.granularity(&granularity, &properties_, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  page_bytes_ = static_cast<std::int64_t>(granularity);
}

std::byte* VirtualPages::reserve(std::int64_t bytes) {
  CUdeviceptr address = 0;
  const CUresult status = driver_.reserve(&address, static_cast<std::size_t>(bytes),
                                          static_cast<std::size_t>(page_bytes_), 0, 0);
  return status == CUDA_SUCCESS ? reinterpret_cast<std::byte*>(address) : nullptr;
}

void VirtualPages::release(std::byte* begin, std::int64_t bytes) noexcept {
  driver_.free(address_of(begin), static_cast<std::size_t>(bytes));
}

bool VirtualPages::map_page(CUdeviceptr address) {
  CUmemGenericAllocationHandle handle = 0;
  const auto bytes = static_cast<std::size_t>(page_bytes_);
  const CUresult created = driver_.create(&handle, bytes, &properties_, 0);
  if (!took(created)) return false;
  const CUresult mapped = driver_.map(address, bytes, 0, handle, 0);
  driver_.release(handle);  // the mapping keeps the memory
  return took(mapped);
}

bool VirtualPages::map(std::byte* begin, std::int64_t bytes) {
  const CUmemAccessDesc access{properties_.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  std::int64_t mapped = 0;
  try {
    while (mapped < bytes && map_page(address_of(begin + mapped))) mapped += page_bytes_;
    if (mapped == bytes &&
        took(driver_.set_access(address_of(begin), static_cast<std::size_t>(bytes), &access, 1)))
      return true;
  } catch (...) {
    unmap(begin, mapped);
    throw;
  }
  unmap(begin, mapped);
  return false;
}

void VirtualPages::unmap(std::byte* begin, std::int64_t bytes) noexcept {
  if (bytes > 0) driver_.unmap(address_of(begin), static_cast<std::size_t>(bytes));
}

std::byte* SegmentPages::reserve(std::int64_t bytes) {
  const CurrentDevice current(device_);
  void* begin = nullptr;
  const cudaError_t status = cudaMalloc(&begin, static_cast<std::size_t>(bytes));
  if (status != cudaErrorMemoryAllocation) check(status);
  cudaGetLastError();
  return static_cast<std::byte*>(begin);
}

void SegmentPages::release(std::byte* begin, std::int64_t) noexcept { cudaFree(begin); }

}  // namespace cuda

std::unique_ptr<PageSource> device_pages(Device device, bool expandable) {
  if (device.type == DeviceType::cpu) return host_pages();
  const cuda::CurrentDevice current(device.index);
  cuda::check(cudaFree(nullptr));  // makes the device's context, which the driver's calls need
  if (expandable) return std::make_unique<cuda::VirtualPages>(device.index, cuda::driver());
  return std::make_unique<cuda::SegmentPages>(device.index);
}

}  // namespace ashlar
