// The toolkit's half of device.h: shared memory, 16-byte accesses and launches under nvcc.
#pragma once

#include <cuda_runtime.h>

#include <tuple>

#include "cuda/check.h"
#include "cuda/launch.hpp"
#include "cuda/native_stream.hpp"

namespace ashlar::cuda::backend {

template <typename T, typename Tag>
__device__ __forceinline__ T& shared_object() {
  static_assert(sizeof(T) <= kStaticSharedBytes, "use dynamic_shared for large arrays");
  __shared__ T object;
  return object;
}

__device__ __forceinline__ void* dynamic_bytes() {
  extern __shared__ uint4 dynamic_shared_memory[];
  return dynamic_shared_memory;
}

__device__ __forceinline__ uint4 load16(const void* from) {
  return *static_cast<const uint4*>(from);
}
__device__ __forceinline__ void store16(void* to, uint4 value) { *static_cast<uint4*>(to) = value; }

__device__ __forceinline__ uint2 load8(const void* from) {
  return *static_cast<const uint2*>(from);
}
__device__ __forceinline__ void store8(void* to, uint2 value) { *static_cast<uint2*>(to) = value; }

/// Lets `kernel` take all the shared memory that the current device has.
inline void allow_large_shared(const void* kernel, std::source_location at) {
  int device = 0;
  int bytes = 0;
  cudaFuncAttributes attributes;
  check(cudaGetDevice(&device), at);
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), at);
  check(cudaFuncGetAttributes(&attributes, kernel), at);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             bytes - static_cast<int>(attributes.sharedSizeBytes)),
        at);
}

template <typename... P>
void start(dim3 grid, dim3 block, std::size_t shared_bytes, const LaunchSite& site,
           void (*kernel)(P...), std::tuple<P...> arguments) {
  const void* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > kDefaultSharedBytes) allow_large_shared(function, site.at);
  std::apply(
      [&](P&... values) {
        void* pointers[] = {static_cast<void*>(&values)..., nullptr};
        check(cudaLaunchKernel(function, grid, block, pointers, shared_bytes,
                               static_cast<cudaStream_t>(native_stream(site.stream))),
              site.at);
      },
      arguments);
}

}  // namespace ashlar::cuda::backend
