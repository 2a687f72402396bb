// One source for kernels. Under nvcc this is the CUDA toolkit; else the emulator of tests/support,
// which runs the same kernels on the CPU and needs no toolkit. docs/cuda.md says how to write one.
#pragma once

#include <tuple>
#include <utility>

#include "cuda/launch.hpp"
#ifdef __CUDACC__
#include "cuda/toolkit.h"
#else
#include "emulator/emulator.hpp"
#endif

namespace ashlar::cuda {

/// Static shared memory of a block: shared<float[32], struct Partials>() is the same array in all
/// of a block's threads, undefined at the block's start (NaN on the emulator). At most 16 KiB.
template <typename T, typename Tag>
__device__ __forceinline__ T& shared() {
  return backend::shared_object<T, Tag>();
}

/// The shared bytes that the launch asked for, aligned to 16; undefined at the block's start.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  return static_cast<T*>(backend::dynamic_bytes());
}

/// Sixteen bytes in one access. `from` is aligned to 16 (checked on the emulator, with bounds).
__device__ __forceinline__ uint4 load16(const void* from) { return backend::load16(from); }
__device__ __forceinline__ void store16(void* to, uint4 value) { backend::store16(to, value); }

/// Eight bytes in one access, likewise.
__device__ __forceinline__ uint2 load8(const void* from) { return backend::load8(from); }
__device__ __forceinline__ void store8(void* to, uint2 value) { backend::store8(to, value); }

/// Runs `kernel` on `grid` x `block` threads, in the order of `stream`. Arguments are copied.
/// @throws InvalidArgument for extents that no GPU takes, CudaError when CUDA refuses; each names
/// the line of the launch.
template <typename... P, typename... A>
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, LaunchSite site, void (*kernel)(P...),
            A&&... arguments) {
  validate_launch({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes, site.at);
  backend::start(grid, block, shared_bytes, site, kernel,
                 std::tuple<P...>(std::forward<A>(arguments)...));
}

}  // namespace ashlar::cuda

#include "cuda/float16.h"
