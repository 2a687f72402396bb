// Pinned host memory, copies, peers and what a device has left.
#include "ashlar/device_memory.hpp"

#include "cuda/current_device.hpp"
#include "cuda/native_stream.hpp"
#include "memory/host_bytes.hpp"
#include "memory/out_of_memory.hpp"

namespace ashlar {
namespace {

class PinnedMemory final : public MemoryResource {
  void* do_allocate(std::int64_t bytes, Category category, StreamRef) override {
    detail::check_request(bytes, category);
    void* pointer = nullptr;
    const auto size = static_cast<std::size_t>(align_up(std::max<std::int64_t>(bytes, 1)));
    const cudaError_t status = cudaHostAlloc(&pointer, size, cudaHostAllocPortable);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      detail::throw_out_of_memory(bytes, category, "the driver pinned no more host memory",
                                  "keep fewer batches in flight");
    }
    cuda::check(status);
    return pointer;
  }

  void do_deallocate(void* pointer, std::int64_t, Category, StreamRef stream) noexcept override {
    try {
      stream.synchronize();
    } catch (const std::exception&) {  // its owner is told by the next synchronize()
    }
    cudaFreeHost(pointer);
  }
};

}  // namespace

MemoryResource& pinned_memory() {
  static PinnedMemory memory;
  return memory;
}

void copy_async(void* to, const void* from, std::int64_t bytes, StreamRef stream) {
  if (stream.device().type == DeviceType::cpu) return detail::copy_on_host(to, from, bytes, stream);
  cuda::check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault,
                              static_cast<cudaStream_t>(cuda::native_stream(stream))));
}

void fill_async(void* to, std::uint8_t value, std::int64_t bytes, StreamRef stream) {
  if (stream.device().type == DeviceType::cpu)
    return detail::fill_on_host(to, value, bytes, stream);
  cuda::check(cudaMemsetAsync(to, value, static_cast<std::size_t>(bytes),
                              static_cast<cudaStream_t>(cuda::native_stream(stream))));
}

bool enable_peer_access(Device from, Device to) {
  int can = 0;
  cuda::check(cudaDeviceCanAccessPeer(&can, from.index, to.index));
  if (can == 0) return false;
  const cuda::CurrentDevice current(from.index);
  const cudaError_t status = cudaDeviceEnablePeerAccess(to.index, 0);
  if (status != cudaErrorPeerAccessAlreadyEnabled) cuda::check(status);
  cudaGetLastError();
  return true;
}

DeviceBytes device_bytes(Device device) {
  const cuda::CurrentDevice current(device.index);
  std::size_t free = 0, total = 0;
  cuda::check(cudaMemGetInfo(&free, &total));
  return {static_cast<std::int64_t>(free), static_cast<std::int64_t>(total)};
}

}  // namespace ashlar
