// Device memory where CUDA was not built in; cuda/ otherwise.
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "memory/host_bytes.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

std::unique_ptr<PageSource> device_pages(Device device, bool) {
  if (device.type == DeviceType::cpu) return host_pages();
  throw CudaError(detail::why_no_cuda());
}

MemoryResource& pinned_memory() { throw CudaError(detail::why_no_cuda()); }

void copy_async(void* to, const void* from, std::int64_t bytes, StreamRef stream) {
  detail::copy_on_host(to, from, bytes, stream);
}

void fill_async(void* to, std::uint8_t value, std::int64_t bytes, StreamRef stream) {
  detail::fill_on_host(to, value, bytes, stream);
}

bool enable_peer_access(Device, Device) { throw CudaError(detail::why_no_cuda()); }

DeviceBytes device_bytes(Device) { throw CudaError(detail::why_no_cuda()); }

}  // namespace ashlar
