// Memory of CUDA devices, and of the host where devices reach it; copies in the order of a stream.
// Without CUDA what needs it throws.
#pragma once

#include <cstdint>
#include <memory>

#include "ashlar/caching_resource.hpp"

namespace ashlar {

/// A device's memory for CachingResource: addresses reserved apart from pages (the driver's virtual
/// memory management), or whole segments where the device cannot do that or CachingOptions has
/// expandable off.
/// @throws CudaError when the device does not work here.
std::unique_ptr<PageSource> device_pages(Device device, bool expandable = true);

/// Host memory that devices copy from and to without a stop; taken from the driver at each call, so
/// for long-lived buffers. Process-wide. @throws OutOfMemory, CudaError.
MemoryResource& pinned_memory();

/// Copies bytes between any two of host and devices, in stream order: both must stay until the
/// stream has passed. A source in pageable host memory is read before the call returns.
/// @throws CudaError.
void copy_async(void* to, const void* from, std::int64_t bytes, StreamRef stream);

/// Sets every byte to `value`, in stream order. @throws CudaError.
void fill_async(void* to, std::uint8_t value, std::int64_t bytes, StreamRef stream);

/// Lets kernels on `from` read memory of `to`. @return false where the hardware cannot.
/// @throws CudaError.
bool enable_peer_access(Device from, Device to);

/// Free and total bytes of a device, as the driver says. @throws CudaError.
struct DeviceBytes {
  std::int64_t free = 0;
  std::int64_t total = 0;
};
DeviceBytes device_bytes(Device device);

}  // namespace ashlar
