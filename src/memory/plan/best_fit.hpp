// Best fit: items one after the other, each in the smallest gap that takes it, or on top.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "memory/plan/problem.hpp"

namespace ashlar::plan {

/// A packing under construction. Overlapping windows of time, of several widths, list what they
/// hold by offset: an item is compared with those in the narrowest window that holds it.
class Packing {
 public:
  Packing(std::span<const Item> items, int sections);

  /// The smallest gap between placed items that meet `id`, or the end of them.
  std::int64_t best_offset(std::size_t id) const;
  void place(std::size_t id, std::int64_t offset);
  /// Each at its best offset, in the order of `ids`.
  /// @param go_on called now and then with the items placed since; false stops
  /// @return false when stopped
  bool place_all(std::span<const std::size_t> ids, const std::function<bool(std::int64_t)>& go_on);

  std::int64_t offset(std::size_t id) const { return offsets_[id]; }
  const std::vector<std::int64_t>& offsets() const { return offsets_; }
  std::int64_t height() const { return height_; }

 private:
  struct Layer {
    int stride = 0;  // windows begin at multiples of it and are twice as wide
    std::vector<std::vector<std::uint32_t>> windows;  // items by offset
  };

  std::span<const Item> items_;
  std::vector<std::int64_t> offsets_;  // -1: not placed
  std::int64_t height_ = 0;
  std::vector<Layer> layers_;  // from wide to narrow
};

/// What an allocator would do that sees the future of no item: each in the smallest gap at its
/// begin. Quick at any size. @return offsets by item, in units
std::vector<std::int64_t> in_order_of_time(const Problem& problem);

/// Called with each packing that is lower than those before.
using Incumbent = std::function<void(const std::vector<std::int64_t>&)>;

/// In order of time, then best fit in several orders (size, area, lifetime, start) for as long as
/// `go_on` says yes (see Packing::place_all). @return the lowest packing
std::vector<std::int64_t> best_fit(const Problem& problem, const Incumbent& accept,
                                   const std::function<bool(std::int64_t)>& go_on);
std::vector<std::int64_t> best_fit(const Problem& problem);

}  // namespace ashlar::plan
