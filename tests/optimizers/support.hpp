// Spans with random contents at any offset, and the textbook rules in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "ashlar/optimizer.hpp"

namespace ashlar::testing {

/// `elements` values of T that start `offset` elements into their memory, with guards on both
/// sides.
template <typename T>
class Span {
 public:
  Span(std::int64_t elements, std::int64_t offset)
      : elements_(elements),
        offset_(offset),
        memory_(index(elements + offset + kGuard), T(kMark)) {}

  T* data() { return memory_.data() + offset_; }
  T& operator[](std::int64_t i) { return memory_[index(offset_ + i)]; }
  TensorView view() { return {data(), dtype_of<T>, {elements_}}; }
  bool guards_are_whole() const {
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(memory_.size()); ++i)
      if ((i < offset_ || i >= offset_ + elements_) &&
          static_cast<float>(memory_[index(i)]) != kMark)
        return false;
    return true;
  }
  void fill_normal(std::mt19937& random, double scale) {
    std::normal_distribution<double> normal(0, scale);
    for (std::int64_t i = 0; i < elements_; ++i) (*this)[i] = T(static_cast<float>(normal(random)));
  }
  void fill_zero() {
    for (std::int64_t i = 0; i < elements_; ++i) (*this)[i] = T(0.0F);
  }

 private:
  static constexpr std::int64_t kGuard = 70;
  static constexpr float kMark = 12.5F;
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  std::int64_t elements_;
  std::int64_t offset_;
  std::vector<T> memory_;
};

/// Textbook AdamW of one element in double (arXiv:1711.05101, algorithm 2).
struct AdamWOracle {
  double p;
  double m = 0;
  double v = 0;

  void step(const AdamW& c, double lr, double t, double g, bool decay) {
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    const double corrected_m = m / (1 - std::pow(c.beta1, t));
    const double corrected_v = v / (1 - std::pow(c.beta2, t));
    if (decay) p -= lr * c.weight_decay * p;
    p -= lr * corrected_m / (std::sqrt(corrected_v) + c.epsilon);
  }
};

/// Textbook SGD of one element in double.
struct SgdOracle {
  double p;
  double u = 0;

  void step(const Sgd& c, double lr, double, double g, bool decay) {
    const double d = g + (decay ? c.weight_decay * p : 0);
    u = c.momentum * u + d;
    p -= lr * (c.nesterov ? d + c.momentum * u : u);
  }
};

}  // namespace ashlar::testing
