// In which order the emulator runs blocks, warps and lanes. A correct kernel gives the same bits in
// every order.
#pragma once

#include <cstdint>
#include <numeric>
#include <string>

namespace emulator {

struct Order {
  enum class Kind : std::uint32_t { ascending, descending, shuffled };
  Kind kind = Kind::ascending;
  std::uint32_t seed = 0;
};

/// "ascending", "descending", "shuffled with seed 3".
std::string name_of(Order order);

/// The order of the launches made while this object lives, on all threads.
class OrderScope {
 public:
  explicit OrderScope(Order order);
  ~OrderScope();
  OrderScope(const OrderScope&) = delete;
  OrderScope& operator=(const OrderScope&) = delete;

 private:
  Order before_;
};

Order current_order();

/// Draws the orders of one launch: each is i -> (first + i * step) mod count, step prime to count.
class Shuffler {
 public:
  explicit Shuffler(Order order) : order_(order), state_(order.seed * 0x9E3779B97F4A7C15ULL + 1) {}

  template <typename Visit>
  void visit(std::uint64_t count, const Visit& visit) {
    std::uint64_t first = 0;
    std::uint64_t step = 1;
    if (order_.kind == Order::Kind::descending) first = step = count - 1;
    if (order_.kind == Order::Kind::shuffled && count > 1) {
      first = random() % count;
      do step = 1 + random() % (count - 1);
      while (std::gcd(step, count) != 1);
    }
    std::uint64_t at = first;
    for (std::uint64_t i = 0; i < count; ++i) {
      visit(at);
      at += step;
      if (at >= count) at -= count;
    }
  }

 private:
  std::uint64_t random() {  // SplitMix64: Steele, Lea, Flood, OOPSLA 2014
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }

  Order order_;
  std::uint64_t state_;
};

}  // namespace emulator
