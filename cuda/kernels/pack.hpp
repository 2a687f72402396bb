// Neighbouring elements at a time, eight or four, computed in float: accesses of 16 or 8 bytes
// where address and count allow them, single ones elsewhere. Which of the two runs does not show in
// the results.
#pragma once

#include <bit>
#include <cstdint>

#include "ashlar/dtype.hpp"
#include "cuda/device.h"

namespace ashlar::cuda {

inline constexpr int kPack = 8;

template <typename V, int N = kPack>
struct PackOf {
  V at[N] = {};
};
using Pack = PackOf<float>;

namespace detail {

template <int N, typename T>
__device__ inline bool is_whole(const T* p, std::int64_t count) {
  constexpr std::size_t kBytes = N * sizeof(T) < 16 ? N * sizeof(T) : 16;
  return count >= N && reinterpret_cast<std::uintptr_t>(p) % kBytes == 0;
}

template <int N>
__device__ inline void load_whole(const float* p, PackOf<float, N>& pack) {
  for (int i = 0; i < N; i += 4) {
    const uint4 words = load16(p + i);
    pack.at[i] = std::bit_cast<float>(words.x);
    pack.at[i + 1] = std::bit_cast<float>(words.y);
    pack.at[i + 2] = std::bit_cast<float>(words.z);
    pack.at[i + 3] = std::bit_cast<float>(words.w);
  }
}
/// f(word) gives the two floats of a 32-bit word.
template <int N, class F>
__device__ inline void load_pairs(const void* p, PackOf<float, N>& pack, const F& f) {
  static_assert(N == 4 || N == 8);
  uint4 words{};
  if constexpr (N == 8) {
    words = load16(p);
  } else {
    const uint2 half = load8(p);
    words.x = half.x;
    words.y = half.y;
  }
  const std::uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
  for (int i = 0; i < N / 2; ++i) {
    const float2 pair = f(pairs[i]);
    pack.at[2 * i] = pair.x;
    pack.at[2 * i + 1] = pair.y;
  }
}
template <int N>
__device__ inline void load_whole(const bf16* p, PackOf<float, N>& pack) {
  load_pairs(p, pack, [](std::uint32_t word) { return unpack_bf16(word); });
}
template <int N>
__device__ inline void load_whole(const f16* p, PackOf<float, N>& pack) {
  load_pairs(p, pack, [](std::uint32_t word) {
    return float2{half_to_float(static_cast<std::uint16_t>(word & 0xffffU)),
                  half_to_float(static_cast<std::uint16_t>(word >> 16))};
  });
}

template <int N>
__device__ inline void store_whole(const PackOf<float, N>& pack, float* p) {
  for (int i = 0; i < N; i += 4) {
    const float* v = pack.at + i;
    store16(p + i, uint4{std::bit_cast<std::uint32_t>(v[0]), std::bit_cast<std::uint32_t>(v[1]),
                         std::bit_cast<std::uint32_t>(v[2]), std::bit_cast<std::uint32_t>(v[3])});
  }
}
/// f(low, high) gives the 32-bit word of two floats.
template <int N, class F>
__device__ inline void store_pairs(const PackOf<float, N>& pack, void* p, const F& f) {
  const float* v = pack.at;
  if constexpr (N == 8) {
    store16(p, uint4{f(v[0], v[1]), f(v[2], v[3]), f(v[4], v[5]), f(v[6], v[7])});
  } else {
    store8(p, uint2{f(v[0], v[1]), f(v[2], v[3])});
  }
}
template <int N>
__device__ inline void store_whole(const PackOf<float, N>& pack, bf16* p) {
  store_pairs(pack, p, [](float low, float high) { return pack_bf16(low, high); });
}
template <int N>
__device__ inline void store_whole(const PackOf<float, N>& pack, f16* p) {
  store_pairs(pack, p, [](float low, float high) {
    return static_cast<std::uint32_t>(float_to_half(low)) |
           static_cast<std::uint32_t>(float_to_half(high)) << 16;
  });
}

}  // namespace detail

/// Elements [p, p + N), `rest` in place of those from `count` on.
template <int N = kPack, typename T>
__device__ inline PackOf<float, N> load_pack(const T* p, std::int64_t count, float rest = 0) {
  PackOf<float, N> pack;
  if (detail::is_whole<N>(p, count)) {
    detail::load_whole(p, pack);
  } else {
    for (int i = 0; i < N; ++i) pack.at[i] = i < count ? to_float(p[i]) : rest;
  }
  return pack;
}

/// The first `count` elements, rounded to T.
template <int N, typename T>
__device__ inline void store_pack(const PackOf<float, N>& pack, T* p, std::int64_t count) {
  if (detail::is_whole<N>(p, count)) {
    detail::store_whole(pack, p);
  } else {
    for (int i = 0; i < N; ++i)
      if (i < count) p[i] = from_float<T>(pack.at[i]);
  }
}

}  // namespace ashlar::cuda
