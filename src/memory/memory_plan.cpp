#include "ashlar/memory_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "memory/plan/best_fit.hpp"
#include "memory/plan/solver.hpp"

namespace ashlar {
namespace {

void require_sizes(std::span<const PlannedBuffer> problem, std::int64_t alignment) {
  constexpr std::int64_t kMost = std::int64_t{1} << 62;
  if (alignment < 1)
    throw InvalidArgument(fmt::format("memory plan: alignment {} is not positive", alignment));
  std::int64_t total = 0;
  for (std::size_t i = 0; i < problem.size(); ++i) {
    if (problem[i].size < 0)
      throw InvalidArgument(
          fmt::format("memory plan: buffer {} has a negative size, {}", i, problem[i].size));
    if (alignment > kMost - problem[i].size || align_up(problem[i].size, alignment) > kMost - total)
      throw InvalidArgument("memory plan: the sizes sum to more than 2^62 bytes");
    total += align_up(problem[i].size, alignment);
  }
}

}  // namespace

PlanResult solve_memory_plan(std::span<const PlannedBuffer> problem, const PlanOptions& options) {
  require_sizes(problem, options.alignment);
  return plan::Solver(problem, options).run();
}

std::int64_t maximum_load(std::span<const PlannedBuffer> problem) {
  require_sizes(problem, 1);
  std::vector<std::pair<std::int64_t, std::int64_t>> changes;
  for (const PlannedBuffer& buffer : problem) {
    if (buffer.upper <= buffer.lower) continue;
    changes.emplace_back(buffer.lower, buffer.size);
    changes.emplace_back(buffer.upper, -buffer.size);
  }
  std::ranges::sort(changes);  // at one instant ends come first: their change is negative
  std::int64_t load = 0, largest = 0;
  for (const auto& [instant, change] : changes) largest = std::max(largest, load += change);
  return largest;
}

MemoryPlan plan_memory(std::span<const PlannedBuffer> problem, std::int64_t alignment) {
  constexpr std::int64_t kWork = 2'000'000;  // nodes x buffers
  PlanOptions options;
  options.alignment = alignment;
  options.node_limit = kWork / static_cast<std::int64_t>(std::max<std::size_t>(problem.size(), 1));
  return solve_memory_plan(problem, options).plan;
}

MemoryPlan fill_gaps(std::span<const PlannedBuffer> problem, const MemoryPlan& fixed,
                     std::int64_t alignment) {
  require_sizes(problem, alignment);
  plan::Problem form = plan::canonical(problem, alignment);
  for (plan::Item& item : form.items) item.size *= form.unit;
  MemoryPlan filled{std::vector<std::int64_t>(problem.size()), fixed.height};
  std::ranges::copy(fixed.offsets, filled.offsets.begin());

  plan::Packing packing(form.items, form.sections);
  std::vector<std::size_t> further;
  for (std::size_t i = 0; i < form.items.size(); ++i) {
    if (form.buffer_of[i] < fixed.offsets.size()) {
      packing.place(i, fixed.offsets[form.buffer_of[i]]);
    } else {
      further.push_back(i);
    }
  }
  std::ranges::stable_sort(further, [&](std::size_t a, std::size_t b) {
    return form.items[a].size > form.items[b].size;
  });
  for (const std::size_t i : further) {
    const std::int64_t offset = packing.best_offset(i);
    const bool fits = offset + form.items[i].size <= fixed.height;
    filled.offsets[form.buffer_of[i]] = fits ? offset : -1;
    if (fits) packing.place(i, offset);
  }
  return filled;
}

}  // namespace ashlar
