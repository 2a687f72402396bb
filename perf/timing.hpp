// What the benchmarks time with: seconds since a start, and the median of repetitions.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace ashlar::perf {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The middle one; of an even number the upper.
inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace ashlar::perf
