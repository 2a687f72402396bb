// What forward and backward of attention share. A block has kHeadWarps warps; a warp owns kOwn rows
// (queries in forward and for their gradient, keys for theirs) and meets the other side in tiles of
// a warp's width: a lane has one column of the scores, then some channels of the sums.
#pragma once

#include <bit>
#include <cmath>

#include "cuda/kernels/host.hpp"
#include "ops/attention_kernels.hpp"

namespace ashlar::cuda {

inline constexpr int kOwn = 4;        // rows of a warp
inline constexpr int kHeadWarps = 4;  // of a block
inline constexpr int kHeadBlock = kHeadWarps * kWarp;
inline constexpr int kOwnOfBlock = kOwn * kHeadWarps;
inline constexpr std::int64_t kMostChannels = 128;  // of a head

/// Where queries, keys and values lie (or their gradients): elements from row to row.
template <typename T>
struct HeadOperands {
  T *query, *key, *value;
  std::int64_t query_stride, key_stride;
};

/// Side by side in qkv (rows, 3C), or in three tensors.
template <typename T>
HeadOperands<T> packed_operands(const TensorView& qkv, const AttentionSizes& s) {
  T* first = qkv.as<T>();
  return {first, first + s.channels(), first + 2 * s.channels(), 3 * s.channels(),
          3 * s.channels()};
}
template <typename T>
HeadOperands<T> separate_operands(std::span<const TensorView> qkv, const AttentionSizes& s) {
  return {qkv[0].as<T>(), qkv[1].as<T>(), qkv[2].as<T>(), s.channels(), s.kv_heads * s.head_size};
}

/// The rows that a block works on, in one sequence; positions count from the sequence's first row.
struct Stretch {
  std::int64_t first_row, length, begin;  // begin: position of the block's first own row
};

/// Sequences of equal length, or between boundaries (sequences + 1) that lie on the device.
struct DeviceSequences {
  AttentionSizes sizes;
  const std::int32_t* boundaries;

  /// Places for blocks; with boundaries some stay empty.
  std::int64_t places() const {
    return boundaries == nullptr ? sizes.sequences * ceil_div(sizes.positions, kOwnOfBlock)
                                 : sizes.rows / kOwnOfBlock + sizes.sequences;
  }
  __device__ std::int64_t boundary(std::int64_t s) const {
    const std::int64_t row = boundaries[s];
    return row < 0 ? 0 : row > sizes.rows ? sizes.rows : row;
  }
  /// Grows by at least the blocks of a sequence.
  __device__ std::int64_t first_place(std::int64_t s) const {
    return boundary(s) / kOwnOfBlock + s;
  }
  __device__ Stretch stretch(std::int64_t place) const {
    if (boundaries == nullptr) {
      const std::int64_t blocks = ceil_div(sizes.positions, kOwnOfBlock);
      return {place / blocks * sizes.positions, sizes.positions, place % blocks * kOwnOfBlock};
    }
    std::int64_t low = 0, high = sizes.sequences;
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      if (first_place(middle) <= place) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return {boundary(low), boundary(low + 1) - boundary(low),
            (place - first_place(low)) * kOwnOfBlock};
  }
};

/// Elements of the parts of dynamic shared memory.
__device__ __host__ inline std::int64_t own_elements(std::int64_t size) {
  return kOwnOfBlock * size;
}
__device__ __host__ inline std::int64_t tile_stride(std::int64_t size) { return size + 1; }
__device__ __host__ inline std::int64_t tile_elements(std::int64_t size) {
  return kWarp * tile_stride(size);
}

/// Rows [begin, begin + kOwnOfBlock) of `from`, times `factor`, as (warps, size, kOwn); zeros
/// behind row `length`.
template <typename T>
__device__ inline void load_own(const T* from, std::int64_t stride, std::int64_t begin,
                                std::int64_t length, std::int64_t size, float factor, float* own) {
  for (std::int64_t i = threadIdx.x; i < own_elements(size); i += kHeadBlock) {
    const std::int64_t row = i / size, channel = i % size;
    const bool there = begin + row < length;
    const float v = there ? factor * to_float(from[(begin + row) * stride + channel]) : 0.0F;
    own[row / kOwn * kOwn * size + channel * kOwn + row % kOwn] = v;
  }
}

/// Rows [first, first + kWarp) of `from`, times `factor`, as (rows, tile_stride); zeros likewise.
template <typename T>
__device__ inline void load_tile(const T* from, std::int64_t stride, std::int64_t first,
                                 std::int64_t length, std::int64_t size, float factor,
                                 float* tile) {
  for (std::int64_t i = threadIdx.x; i < kWarp * size; i += kHeadBlock) {
    const std::int64_t row = i / size, channel = i % size;
    const bool there = first + row < length;
    tile[row * tile_stride(size) + channel] =
        there ? factor * to_float(from[(first + row) * stride + channel]) : 0.0F;
  }
}

/// One value for each of a warp's own rows.
struct OwnValues {
  float at[kOwn] = {};
};

/// Own rows (size, kOwn) times this lane's row of a tile.
__device__ inline OwnValues products(const float* own, const float* tile, std::int64_t size) {
  const float* column = tile + lane_of_thread() * tile_stride(size);
  OwnValues sums;
  for (std::int64_t channel = 0; channel < size; ++channel) {
    const uint4 rows = load16(own + channel * kOwn);
    const float v = column[channel];
    sums.at[0] = std::fma(std::bit_cast<float>(rows.x), v, sums.at[0]);
    sums.at[1] = std::fma(std::bit_cast<float>(rows.y), v, sums.at[1]);
    sums.at[2] = std::fma(std::bit_cast<float>(rows.z), v, sums.at[2]);
    sums.at[3] = std::fma(std::bit_cast<float>(rows.w), v, sums.at[3]);
  }
  return sums;
}

/// Sums of own rows: this lane's channels lane, lane + 32, ...
template <int channels>
struct OwnSums {
  float at[kOwn][channels] = {};

  __device__ void scale(int row, float factor) {
    for (float& sum : at[row]) sum *= factor;
  }

  /// Adds weights (own rows; the lane is the tile's row) times the tile.
  __device__ void add(const OwnValues& weights, const float* tile, std::int64_t size) {
    for (int j = 0; j < kWarp; ++j) {
      OwnValues w;
      for (int row = 0; row < kOwn; ++row) w.at[row] = __shfl_sync(kAllLanes, weights.at[row], j);
      for (int c = 0; c < channels; ++c) {
        const std::int64_t channel = lane_of_thread() + c * kWarp;
        const float v = channel < size ? tile[j * tile_stride(size) + channel] : 0.0F;
        for (int row = 0; row < kOwn; ++row) at[row][c] = std::fma(w.at[row], v, at[row][c]);
      }
    }
  }

  /// Rows times `factors` to `to`.
  template <typename T>
  __device__ void store(const OwnValues& factors, T* to, std::int64_t stride, std::int64_t first,
                        std::int64_t length, std::int64_t size) const {
    for (int row = 0; row < kOwn; ++row)
      for (int c = 0; c < channels; ++c) {
        const std::int64_t channel = lane_of_thread() + c * kWarp;
        if (first + row < length && channel < size)
          to[(first + row) * stride + channel] = from_float<T>(at[row][c] * factors.at[row]);
      }
  }
};

/// Bytes of shared memory for so many own parts and tiles.
inline std::size_t head_bytes(std::int64_t own, std::int64_t tiles, std::int64_t size) {
  return static_cast<std::size_t>((own * own_elements(size) + tiles * tile_elements(size)) *
                                  size_of(DType::f32));
}

/// Calls f(integral_constant<int, channels of a lane>). @throws InvalidArgument.
template <class F>
void with_head_size(std::int64_t size, const F& f) {
  if (size > kMostChannels)
    throw InvalidArgument("attention on CUDA takes heads of up to 128 channels, not " +
                          std::to_string(size) + ": use more heads or cuDNN");
  if (size <= 2 * kWarp) return f(std::integral_constant<int, 2>{});
  f(std::integral_constant<int, 4>{});
}

}  // namespace ashlar::cuda
