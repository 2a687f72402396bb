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
[[maybe_unused]] static __global__ void sum_rows(float* sums, const float* rows, int n) {
  float sum = 0.0F;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    sum += rows[static_cast<std::int64_t>(blockIdx.x) * n + i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/// Each row to mean 0 and variance 1; dynamic shared memory holds a row of floats. // (rows, n)
[[maybe_unused]] static __global__ void layer_norm(ashlar::bf16* out, const ashlar::bf16* rows,
                                                   int n) {
  using namespace ashlar::cuda;
  float* row = dynamic_shared<float>();
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * n;
  const int step = static_cast<int>(8 * blockDim.x);
  float sum = 0.0F;
  for (int i = static_cast<int>(8 * threadIdx.x); i < n; i += step) {
    const uint4 words = load16(rows + begin + i);
    const std::uint32_t word[] = {words.x, words.y, words.z, words.w};
    for (int j = 0; j < 4; ++j) {
      const float2 pair = unpack_bf16(word[j]);
      row[i + 2 * j] = pair.x;
      row[i + 2 * j + 1] = pair.y;
      sum += pair.x + pair.y;
    }
  }
  const float mean = block_sum(sum) / static_cast<float>(n);
  float square = 0.0F;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    square += (row[i] - mean) * (row[i] - mean);
  const float scale = rsqrtf(block_sum(square) / static_cast<float>(n));
  for (int i = static_cast<int>(8 * threadIdx.x); i < n; i += step) {
    std::uint32_t word[4];
    for (int j = 0; j < 4; ++j)
      word[j] = pack_bf16((row[i + 2 * j] - mean) * scale, (row[i + 2 * j + 1] - mean) * scale);
    store16(out + begin + i, make_uint4(word[0], word[1], word[2], word[3]));
  }
}

/// out = in transposed, in blocks of 32 x 8 threads over tiles of 32 x 32. // (height, width)
[[maybe_unused]] static __global__ void transpose(float* out, const float* in, int height,
                                                  int width) {
  auto& tile = shared<float[32][33], struct Tile>();
  const int x = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
  const int y = static_cast<int>(blockIdx.y * 32 + threadIdx.y);
  for (int i = 0; i < 32; i += 8)
    if (x < width && y + i < height)
      tile[threadIdx.y + static_cast<unsigned>(i)][threadIdx.x] = in[(y + i) * width + x];
  __syncthreads();
  const int u = static_cast<int>(blockIdx.y * 32 + threadIdx.x);
  const int v = static_cast<int>(blockIdx.x * 32 + threadIdx.y);
  for (int i = 0; i < 32; i += 8)
    if (u < height && v + i < width)
      out[(v + i) * height + u] = tile[threadIdx.x][threadIdx.y + static_cast<unsigned>(i)];
}

/// The bits of each half and each bf16 after widening and rounding.
[[maybe_unused]] static __global__ void round_trip(std::uint16_t* half, std::uint16_t* brain,
                                                   const std::uint16_t* bits) {
  using namespace ashlar::cuda;
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  half[i] = from_float<ashlar::f16>(to_float(std::bit_cast<ashlar::f16>(bits[i]))).bits;
  brain[i] = from_float<ashlar::bf16>(to_float(std::bit_cast<ashlar::bf16>(bits[i]))).bits;
}

}  // namespace emulated
