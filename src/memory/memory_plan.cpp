#include "ashlar/memory_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"

namespace ashlar {
namespace {

bool in_use_together(const PlannedBuffer& a, const PlannedBuffer& b) {
  return a.lower < b.upper && b.lower < a.upper;
}

/// A packing under construction: offsets of the buffers placed so far.
class Packing {
 public:
  Packing(std::span<const PlannedBuffer> problem, std::int64_t alignment)
      : problem_(problem), alignment_(alignment) {
    plan_.offsets.assign(problem.size(), -1);
  }

  /// The smallest gap between buffers that are in use with `id`, or the end of them.
  std::int64_t best_offset(std::size_t id) const {
    const std::int64_t size = align_up(problem_[id].size, alignment_);
    std::int64_t top = 0, best = -1, best_gap = 0;
    for (const std::size_t other : placed_) {
      if (!in_use_together(problem_[id], problem_[other])) continue;
      const std::int64_t gap = plan_.offsets[other] - top;
      if (gap >= size && (best < 0 || gap < best_gap)) {
        best = top;
        best_gap = gap;
      }
      top = std::max(top, plan_.offsets[other] + align_up(problem_[other].size, alignment_));
    }
    return best < 0 ? top : best;
  }

  void place(std::size_t id, std::int64_t offset) {
    plan_.offsets[id] = offset;
    plan_.height = std::max(plan_.height, offset + align_up(problem_[id].size, alignment_));
    const auto by_offset = [&](std::size_t a, std::size_t b) {
      return plan_.offsets[a] < plan_.offsets[b];
    };
    placed_.insert(std::upper_bound(placed_.begin(), placed_.end(), id, by_offset), id);
  }

  const MemoryPlan& plan() const { return plan_; }

 private:
  std::span<const PlannedBuffer> problem_;
  std::int64_t alignment_;
  MemoryPlan plan_;
  std::vector<std::size_t> placed_;  // by offset
};

/// Places buffers in `order`, each where it fits best.
MemoryPlan best_fit(std::span<const PlannedBuffer> problem, std::span<const std::size_t> order,
                    std::int64_t alignment) {
  Packing packing(problem, alignment);
  for (const std::size_t id : order) packing.place(id, packing.best_offset(id));
  return packing.plan();
}

}  // namespace

std::int64_t maximum_load(std::span<const PlannedBuffer> problem) {
  std::vector<std::pair<std::int64_t, std::int64_t>> changes;
  for (const PlannedBuffer& buffer : problem) {
    if (buffer.upper <= buffer.lower) continue;
    changes.emplace_back(buffer.lower, buffer.size);
    changes.emplace_back(buffer.upper, -buffer.size);
  }
  std::sort(changes.begin(),
            changes.end());  // at one instant ends come first: their change is negative
  std::int64_t load = 0, largest = 0;
  for (const auto& [instant, change] : changes) largest = std::max(largest, load += change);
  return largest;
}

MemoryPlan plan_memory(std::span<const PlannedBuffer> problem, std::int64_t alignment) {
  const auto area = [&](std::size_t i) {
    return static_cast<double>(problem[i].size) *
           static_cast<double>(problem[i].upper - problem[i].lower);
  };
  std::vector<std::size_t> order(problem.size());
  std::iota(order.begin(), order.end(), 0);
  MemoryPlan best;
  const auto attempt = [&](auto before) {
    std::stable_sort(order.begin(), order.end(), before);
    MemoryPlan plan = best_fit(problem, order, alignment);
    if (best.offsets.empty() || plan.height < best.height) best = std::move(plan);
  };
  attempt([&](std::size_t a, std::size_t b) { return problem[a].size > problem[b].size; });
  attempt([&](std::size_t a, std::size_t b) { return area(a) > area(b); });
  attempt([&](std::size_t a, std::size_t b) {
    return problem[a].upper - problem[a].lower > problem[b].upper - problem[b].lower;
  });
  attempt([&](std::size_t a, std::size_t b) { return problem[a].lower < problem[b].lower; });
  return best;
}

MemoryPlan fill_gaps(std::span<const PlannedBuffer> problem, const MemoryPlan& fixed,
                     std::int64_t alignment) {
  Packing packing(problem, alignment);
  for (std::size_t id = 0; id < fixed.offsets.size(); ++id) packing.place(id, fixed.offsets[id]);
  std::vector<std::size_t> order(problem.size() - fixed.offsets.size());
  std::iota(order.begin(), order.end(), fixed.offsets.size());
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return problem[a].size > problem[b].size; });
  for (const std::size_t id : order) {
    const std::int64_t offset = packing.best_offset(id);
    if (offset + problem[id].size <= fixed.height) packing.place(id, offset);
  }
  return {packing.plan().offsets, fixed.height};
}

void validate(std::span<const PlannedBuffer> problem, const MemoryPlan& plan,
              std::int64_t alignment) {
  if (plan.offsets.size() != problem.size())
    throw Error("memory plan: one offset per buffer is needed");
  for (std::size_t a = 0; a < problem.size(); ++a) {
    if (plan.offsets[a] < 0 || plan.offsets[a] % alignment != 0 ||
        plan.offsets[a] + problem[a].size > plan.height) {
      throw Error(fmt::format("memory plan: buffer {} at {} is misaligned or outside of [0, {})", a,
                              plan.offsets[a], plan.height));
    }
    for (std::size_t b = 0; b < a; ++b) {
      const bool overlap = plan.offsets[a] < plan.offsets[b] + problem[b].size &&
                           plan.offsets[b] < plan.offsets[a] + problem[a].size;
      if (overlap && in_use_together(problem[a], problem[b])) {
        throw Error(
            fmt::format("memory plan: buffers {} and {} are in use together and overlap", b, a));
      }
    }
  }
}

}  // namespace ashlar
