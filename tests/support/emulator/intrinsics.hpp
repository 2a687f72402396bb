// What kernels call by CUDA's names: barriers, shuffles and votes of warps, and a little
// arithmetic.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/block.hpp"

namespace emulator {

/// The value of lane `source` of the warp.
template <typename T>
T exchange(std::string_view call, unsigned mask, T value, unsigned source, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  Block& block = Block::current();
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const std::uint64_t* brought = block.meet_warp(call, mask, bits, site);
  if ((mask >> source & 1U) == 0) block.fail("reads a lane that is not in its mask");
  std::memcpy(&value, &brought[source], sizeof(T));
  return value;
}

unsigned ballot(std::string_view call, unsigned mask, bool predicate, Site site);

}  // namespace emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              emulator::Site site = emulator::Site::current()) {
  const unsigned lane = emulator::Block::current().lane_in_warp();
  const unsigned segment = lane & ~static_cast<unsigned>(width - 1);
  return emulator::exchange("__shfl_sync", mask, value,
                            segment + static_cast<unsigned>(source & (width - 1)), site);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   emulator::Site site = emulator::Site::current()) {
  const unsigned lane = emulator::Block::current().lane_in_warp();
  const unsigned last = lane | static_cast<unsigned>(width - 1);
  return emulator::exchange("__shfl_down_sync", mask, value,
                            lane + delta <= last ? lane + delta : lane, site);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 emulator::Site site = emulator::Site::current()) {
  const unsigned lane = emulator::Block::current().lane_in_warp();
  const unsigned segment = lane & ~static_cast<unsigned>(width - 1);
  return emulator::exchange("__shfl_up_sync", mask, value,
                            lane >= segment + delta ? lane - delta : lane, site);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  emulator::Site site = emulator::Site::current()) {
  const unsigned lane = emulator::Block::current().lane_in_warp();
  const unsigned last = lane | static_cast<unsigned>(width - 1);
  const unsigned source = lane ^ static_cast<unsigned>(lane_mask);
  return emulator::exchange("__shfl_xor_sync", mask, value, source <= last ? source : lane, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulator::Site site = emulator::Site::current()) {
  return emulator::ballot("__ballot_sync", mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate,
                      emulator::Site site = emulator::Site::current()) {
  return emulator::ballot("__any_sync", mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      emulator::Site site = emulator::Site::current()) {
  return emulator::ballot("__all_sync", mask, predicate != 0, site) == mask;
}
inline void __syncwarp(unsigned mask = 0xffffffffU,
                       emulator::Site site = emulator::Site::current()) {
  emulator::Block::current().meet_warp("__syncwarp", mask, 0, site);
}

inline void __syncthreads(emulator::Site site = emulator::Site::current()) {
  emulator::Block::current().meet_block("__syncthreads", false, site);
}
inline int __syncthreads_count(int predicate, emulator::Site site = emulator::Site::current()) {
  return static_cast<int>(
      emulator::Block::current().meet_block("__syncthreads_count", predicate != 0, site));
}
inline int __syncthreads_or(int predicate, emulator::Site site = emulator::Site::current()) {
  return emulator::Block::current().meet_block("__syncthreads_or", predicate != 0, site) != 0;
}
inline int __syncthreads_and(int predicate, emulator::Site site = emulator::Site::current()) {
  emulator::Block& block = emulator::Block::current();
  return block.meet_block("__syncthreads_and", predicate != 0, site) == block.threads();
}

template <typename T>
T __ldg(const T* at) {
  return *at;
}

inline float rsqrtf(float x) { return 1.0F / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
