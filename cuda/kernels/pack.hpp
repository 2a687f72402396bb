// Eight neighbouring elements at a time, computed in float: 16-byte accesses where address and
// count allow them, single ones elsewhere. Which of the two runs does not show in the results.
#pragma once

#include <bit>
#include <cstdint>

#include "ashlar/dtype.hpp"
#include "cuda/device.h"

namespace ashlar::cuda {

inline constexpr int kPack = 8;

template <typename V>
struct PackOf {
  V at[kPack] = {};
};
using Pack = PackOf<float>;

namespace detail {

template <typename T>
__device__ inline bool is_whole(const T* p, std::int64_t count) {
  return count >= kPack && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

__device__ inline void load_whole(const float* p, Pack& pack) {
  for (int half = 0; half < 2; ++half) {
    const uint4 words = load16(p + 4 * half);
    pack.at[4 * half] = std::bit_cast<float>(words.x);
    pack.at[4 * half + 1] = std::bit_cast<float>(words.y);
    pack.at[4 * half + 2] = std::bit_cast<float>(words.z);
    pack.at[4 * half + 3] = std::bit_cast<float>(words.w);
  }
}
/// f(word) gives the two floats of a 32-bit word.
template <class F>
__device__ inline void load_pairs(const void* p, Pack& pack, const F& f) {
  const uint4 loaded = load16(p);
  const std::uint32_t words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
  for (int i = 0; i < 4; ++i) {
    const float2 pair = f(words[i]);
    pack.at[2 * i] = pair.x;
    pack.at[2 * i + 1] = pair.y;
  }
}
__device__ inline void load_whole(const bf16* p, Pack& pack) {
  load_pairs(p, pack, [](std::uint32_t word) { return unpack_bf16(word); });
}
__device__ inline void load_whole(const f16* p, Pack& pack) {
  load_pairs(p, pack, [](std::uint32_t word) {
    return float2{half_to_float(static_cast<std::uint16_t>(word & 0xffffU)),
                  half_to_float(static_cast<std::uint16_t>(word >> 16))};
  });
}

__device__ inline void store_whole(const Pack& pack, float* p) {
  for (int half = 0; half < 2; ++half) {
    const float* v = pack.at + 4 * half;
    store16(p + 4 * half,
            uint4{std::bit_cast<std::uint32_t>(v[0]), std::bit_cast<std::uint32_t>(v[1]),
                  std::bit_cast<std::uint32_t>(v[2]), std::bit_cast<std::uint32_t>(v[3])});
  }
}
/// f(low, high) gives the 32-bit word of two floats.
template <class F>
__device__ inline void store_pairs(const Pack& pack, void* p, const F& f) {
  const float* v = pack.at;
  store16(p, uint4{f(v[0], v[1]), f(v[2], v[3]), f(v[4], v[5]), f(v[6], v[7])});
}
__device__ inline void store_whole(const Pack& pack, bf16* p) {
  store_pairs(pack, p, [](float low, float high) { return pack_bf16(low, high); });
}
__device__ inline void store_whole(const Pack& pack, f16* p) {
  store_pairs(pack, p, [](float low, float high) {
    return static_cast<std::uint32_t>(float_to_half(low)) |
           static_cast<std::uint32_t>(float_to_half(high)) << 16;
  });
}

}  // namespace detail

/// Elements [p, p + 8), `rest` in place of those from `count` on.
template <typename T>
__device__ inline Pack load_pack(const T* p, std::int64_t count, float rest = 0) {
  Pack pack;
  if (detail::is_whole(p, count)) {
    detail::load_whole(p, pack);
  } else {
    for (int i = 0; i < kPack; ++i) pack.at[i] = i < count ? to_float(p[i]) : rest;
  }
  return pack;
}

/// The first `count` elements, rounded to T.
template <typename T>
__device__ inline void store_pack(const Pack& pack, T* p, std::int64_t count) {
  if (detail::is_whole(p, count)) {
    detail::store_whole(pack, p);
  } else {
    for (int i = 0; i < kPack; ++i)
      if (i < count) p[i] = from_float<T>(pack.at[i]);
  }
}

}  // namespace ashlar::cuda
