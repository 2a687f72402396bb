// The canonical form of a packing problem: what is left when names, order, direction of time and
// units are taken away. Equal up to those, problems are solved by the very same search.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ashlar/memory_plan.hpp"

namespace ashlar::plan {

/// A buffer that occupies `size` units during the sections [first, last).
struct Item {
  int first = 0;
  int last = 0;
  std::int64_t size = 0;

  auto operator<=>(const Item&) const = default;
  int width() const { return last - first; }
  bool meets(const Item& other) const { return first < other.last && other.first < last; }
};

/// Sections are the maximal sets of buffers in use together, in order of time: what does not fit
/// elsewhere fits there. Items are sorted; time runs in the direction that sorts first.
struct Problem {
  std::vector<Item> items;
  std::vector<std::size_t> buffer_of;  // an item's index in the caller's problem
  int sections = 0;
  std::int64_t unit = 1;    // bytes: the sizes' greatest common divisor
  std::size_t buffers = 0;  // of the caller, with those that occupy nothing
  std::int64_t load = 0;    // the largest sum of sizes in one section
};

/// Sizes are rounded up to `alignment`. Buffers without bytes or lifetime occupy nothing.
Problem canonical(std::span<const PlannedBuffer> buffers, std::int64_t alignment);

/// Offsets of items, in units, as the caller's plan in bytes.
MemoryPlan to_plan(const Problem& problem, std::span<const std::int64_t> offsets);

/// By item: the largest load of its sections, in units.
std::vector<std::int64_t> largest_loads(const Problem& problem);

/// The largest offset + size.
std::int64_t height_of(const Problem& problem, std::span<const std::int64_t> offsets);

}  // namespace ashlar::plan
