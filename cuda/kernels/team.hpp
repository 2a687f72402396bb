// Threads that share a row: a warp where rows are short, a block where they are long. Sums are
// taken in one order, whatever runs first.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/device.h"
#include "cuda/kernels/pack.hpp"

namespace ashlar::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kBlock = 256;  // threads
inline constexpr int kWarps = kBlock / kWarp;
inline constexpr unsigned kAllLanes = 0xffffffffU;
inline constexpr std::int64_t kLongRow = 1024;  // elements; longer rows get a whole block

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_of_thread() { return static_cast<int>(threadIdx.x) / kWarp; }
/// This thread among all of the grid's first axis.
__device__ inline std::int64_t thread_in_grid() {
  return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}

struct Add {
  template <typename V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
struct Larger {
  __device__ float operator()(float a, float b) const { return a < b ? b : a; }
};

/// x of all lanes joined by a commutative operation; every lane gets the same bits.
template <class Join, typename V>
__device__ inline V join_warp(V x, Join join) {
  for (int step = kWarp / 2; step > 0; step /= 2) x = join(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

/// The same over a team of `threads` (a warp, or the whole block): warps in their order.
template <int threads, class Join, typename V>
__device__ inline V join_team(V x, Join join) {
  x = join_warp(x, join);
  if constexpr (threads > kWarp) {
    auto& partials = shared<V[threads / kWarp], struct TeamPartials>();
    __syncthreads();
    if (lane_of_thread() == 0) partials[warp_of_thread()] = x;
    __syncthreads();
    x = partials[0];
    for (int warp = 1; warp < threads / kWarp; ++warp) x = join(x, partials[warp]);
  }
  return x;
}

/// A team's row, and the thread within the team.
template <int threads>
__device__ inline std::int64_t team_row() {
  return threads == kWarp ? std::int64_t{blockIdx.x} * kWarps + warp_of_thread() : blockIdx.x;
}
template <int threads>
__device__ inline int team_thread() {
  return threads == kWarp ? lane_of_thread() : static_cast<int>(threadIdx.x);
}
/// Calls body(first element, elements left) for the packs of a row of n that this thread has.
template <int threads, class Body>
__device__ inline void for_each_pack(std::int64_t n, const Body& body) {
  for (std::int64_t i = std::int64_t{team_thread<threads>()} * kPack; i < n; i += threads * kPack)
    body(i, n - i);
}

/// Blocks of kBlock threads that `rows` teams fill.
template <int threads>
dim3 grid_of_teams(std::int64_t rows) {
  return dim3(static_cast<unsigned>(threads == kWarp ? (rows + kWarps - 1) / kWarps : rows));
}

/// Calls f(integral_constant<int, threads of a team>) for rows of n elements.
template <class F>
void with_team(std::int64_t n, const F& f) {
  if (n <= kLongRow) return f(std::integral_constant<int, kWarp>{});
  f(std::integral_constant<int, kBlock>{});
}

}  // namespace ashlar::cuda
