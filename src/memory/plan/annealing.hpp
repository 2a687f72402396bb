// Simulated annealing over the order in which items are put on top of each other. It has no proofs
// and seldom a perfect fit, but where there is room it gets lower than depth-first search.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "memory/plan/problem.hpp"

namespace ashlar::plan {

class Annealing {
 public:
  explicit Annealing(const Problem& problem);

  /// One cooling, from the order that the last one ended with, or from that of `lowest` where this
  /// is lower than all seen.
  /// @param bound no packing is lower: done when it is reached
  /// @param found called with each packing that is lower than all before
  /// @param go_on called now and then with the moves tried since; false stops
  void run(std::span<const std::int64_t> lowest, std::int64_t bound, std::int64_t moves,
           const std::function<void(const std::vector<std::int64_t>&)>& found,
           const std::function<bool(std::int64_t)>& go_on);

  std::int64_t moves() const { return moves_; }  // of the last run

 private:
  /// Tops by section before an item in the order, and what of them exceeds the target.
  struct Skyline {
    std::vector<std::int64_t> tops;
    std::int64_t excess = 0;
  };
  struct Move {
    int from, to;  // positions in the order
    bool swaps;    // both items move; else one, and those between shift
    Move reversed() const { return {to, from, swaps}; }
  };

  void start_from(std::span<const std::int64_t> offsets, std::int64_t height);
  void aim(std::int64_t bound);
  bool draw(Move& move);
  int draw_item();
  void apply(const Move& move);
  bool stack(int first, std::int64_t most);
  void put(const Item& placed);
  void keep(int first);
  std::vector<std::int64_t> offsets() const;
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }
  int below(int count) { return static_cast<int>(uniform() * count); }
  double exponential();
  const Item& item(int id) const { return problem_.items[static_cast<std::size_t>(id)]; }
  int count() const { return static_cast<int>(problem_.items.size()); }

  const Problem& problem_;
  bool summable_ = true;  // excesses keep within 64 bits; else there are no moves
  int stride_;            // positions from one stored skyline to the next
  std::vector<int> order_, position_;
  std::vector<Skyline> kept_, tried_;  // every `stride_` positions: of the order, of a move
  std::size_t last_tried_ = 0;
  Skyline now_, end_;  // while stacking; of the whole order
  std::int64_t height_ = 0, target_ = 0, moves_ = 0;
  std::mt19937_64 random_{2};
};

}  // namespace ashlar::plan
