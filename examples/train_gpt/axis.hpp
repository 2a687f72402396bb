// One axis of a chart: where a value lies, and which round values are worth a tick.
#pragma once

#include <vector>

namespace train_gpt {

/// Maps [low, high] linearly onto pixels [begin, end]; begin may exceed end (y grows downwards).
struct Axis {
  double low;
  double high;
  double begin;
  double end;

  double at(double value) const { return begin + (value - low) / (high - low) * (end - begin); }
};

/// Multiples of 1, 2 or 5 times a power of `base` (10 for counts; 2 for bytes, where 5 is left out)
/// within [low, high], about `count` of them.
std::vector<double> ticks(double low, double high, int count, int base = 10);

}  // namespace train_gpt
