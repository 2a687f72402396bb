// What rows of softmax share: the largest element and the sum of exponentials, in one pass.
#pragma once

#include <cmath>
#include <limits>

#include "cuda/kernels/team.hpp"

namespace ashlar::cuda {

inline constexpr float kHidden = -std::numeric_limits<float>::infinity();

/// Of a row: its largest element, and the sum of e^(x - most).
struct RowSum {
  float most = kHidden;
  float sum = 0;
  __device__ float log_sum() const { return most + std::log(sum); }
};

/// Takes a pack in; elements that are not there are kHidden.
__device__ inline void add_pack(const Pack& v, RowSum& row) {
  float most = row.most;
  for (const float element : v.at) most = Larger()(most, element);
  if (most == kHidden) return;
  row.sum *= std::exp(row.most - most);
  row.most = most;
  for (const float element : v.at) row.sum += std::exp(element - most);
}

/// Of a row of n; all threads of the team get it.
template <int threads, typename T>
__device__ inline RowSum sum_of_exponentials(const T* x, std::int64_t n) {
  RowSum mine;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    add_pack(load_pack(x + i, left, kHidden), mine);
  });
  const float most = join_team<threads>(mine.most, Larger());
  const float part = mine.most == kHidden ? 0.0F : mine.sum * std::exp(mine.most - most);
  return {most, join_team<threads>(part, Add())};
}

}  // namespace ashlar::cuda
