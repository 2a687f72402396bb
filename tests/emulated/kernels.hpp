// Kernels of the emulator's own tests; they compile as CUDA too.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace emulated {

using ashlar::cuda::dynamic_shared;
using ashlar::cuda::shared;

inline __device__ float warp_sum(float value) {
  for (int i = 16; i > 0; i /= 2) value += __shfl_xor_sync(0xffffffffU, value, i);
  return value;
}

/// The sum over a block of full warps, the same in every thread.
inline __device__ float block_sum(float value) {
  auto& partials = shared<float[32], struct Partials>();
  const unsigned warp = threadIdx.x / 32;
  const unsigned lane = threadIdx.x % 32;
  value = warp_sum(value);
  __syncthreads();
  if (lane == 0) partials[warp] = value;
  __syncthreads();
  return warp_sum(lane < blockDim.x / 32 ? partials[lane] : 0.0F);
}

/// sums[b]: the sum of row b, n elements each. // (rows, n)
static __global__ void sum_rows(float* sums, const float* rows, int n) {
  float sum = 0.0F;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    sum += rows[static_cast<std::int64_t>(blockIdx.x) * n + i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

}  // namespace emulated
