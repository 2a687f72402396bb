// Loads by instant with range additions and their maximum: a segment tree, both in O(log n).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ashlar {

class LoadTree {
 public:
  explicit LoadTree(int instants) {
    while (leaves_ < instants) leaves_ *= 2;
    added_.assign(static_cast<std::size_t>(2 * leaves_), 0);
    most_.assign(static_cast<std::size_t>(2 * leaves_), 0);
  }

  /// Adds `bytes` to the instants [first, last).
  void add(int first, int last, std::int64_t bytes) {
    if (first < last && bytes != 0) add(1, 0, leaves_, first, last, bytes);
  }

  std::int64_t at(int instant) const {
    std::int64_t sum = 0;
    for (int node = instant + leaves_; node > 0; node /= 2)
      sum += added_[static_cast<std::size_t>(node)];
    return sum;
  }

  std::int64_t maximum() const { return most_[1]; }

  /// The first instant of the maximum.
  int peak() const {
    int node = 1;
    while (node < leaves_) node = 2 * node + (most(2 * node) >= most(2 * node + 1) ? 0 : 1);
    return node - leaves_;
  }

 private:
  std::int64_t most(int node) const { return most_[static_cast<std::size_t>(node)]; }

  void add(int node, int begin, int end, int first, int last, std::int64_t bytes) {
    std::int64_t& here = most_[static_cast<std::size_t>(node)];
    if (first <= begin && end <= last) {
      added_[static_cast<std::size_t>(node)] += bytes;
      here += bytes;
      return;
    }
    const int middle = begin + (end - begin) / 2;
    if (first < middle) add(2 * node, begin, middle, first, last, bytes);
    if (last > middle) add(2 * node + 1, middle, end, first, last, bytes);
    here = std::max(most(2 * node), most(2 * node + 1)) + added_[static_cast<std::size_t>(node)];
  }

  int leaves_ = 1;
  std::vector<std::int64_t> added_;  // to a whole node
  std::vector<std::int64_t> most_;   // maximum below a node, its own additions included
};

}  // namespace ashlar
