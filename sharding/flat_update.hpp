// What the update of sharded flats is made of, in either front door: the norm of all gradients, the
// factor that clips it, and the work in chunks over threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "ashlar/optimizer.hpp"
#include "base/math/clip.hpp"
#include "runtime/thread_pool.hpp"

namespace ashlar {

/// The square root of the sum of squares [ranks x flats], added in the order (flat, rank) in fp64.
inline double norm_of(std::span<const double> squares, std::size_t ranks) {
  const std::size_t flats = squares.size() / ranks;
  double sum = 0;
  for (std::size_t flat = 0; flat < flats; ++flat) {
    for (std::size_t rank = 0; rank < ranks; ++rank) sum += squares[rank * flats + flat];
  }
  return std::sqrt(sum);
}

/// Calls run(i, begin, end) for the parts of segments 0 .. count-1 that lie in [first, last), all
/// in elements of the flat; parts of a chunk in order, chunks spread over the pool.
/// @param segment(i) gives begin and end of one, in ascending order
template <typename SegmentAt, typename Run>
void for_each_part(ThreadPool& pool, std::int64_t first, std::int64_t last, std::size_t count,
                   const SegmentAt& segment, const Run& run) {
  constexpr std::int64_t kChunk = 1 << 16;
  const auto chunk = [&](int c) {
    const std::int64_t begin = first + c * kChunk, end = std::min(begin + kChunk, last);
    for (std::size_t i = 0; i < count; ++i) {
      const auto [from, to] = segment(i);
      if (std::max(begin, from) < std::min(end, to))
        run(i, std::max(begin, from), std::min(end, to));
    }
  };
  pool.parallel(static_cast<int>((last - first + kChunk - 1) / kChunk), chunk);
}

}  // namespace ashlar
