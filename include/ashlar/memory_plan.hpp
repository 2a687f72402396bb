// Offline packing: buffers with known lifetimes get offsets in one arena. Problem and solution are
// plain data.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace ashlar {

/// One buffer: in use during [lower, upper), a half-open interval of instructions; size in bytes.
/// Without bytes or instructions it occupies nothing.
struct PlannedBuffer {
  std::int64_t lower = 0;
  std::int64_t upper = 0;
  std::int64_t size = 0;
};

/// Byte offsets, one per buffer, and the arena's height: the largest offset + size, where sizes are
/// rounded up to the alignment.
struct MemoryPlan {
  std::vector<std::int64_t> offsets;
  std::int64_t height = 0;
};

/// What is known at a moment of a search, in bytes. The height only falls, the bound only rises.
struct PlanProgress {
  const MemoryPlan& plan;  // the lowest so far, complete and valid
  std::int64_t lower_bound = 0;
  std::int64_t nodes = 0;
};

struct PlanOptions {
  std::int64_t alignment = 1;       // of offsets, bytes
  std::int64_t capacity = 0;        // bytes: done when a plan keeps within; 0: the lowest is sought
  std::int64_t node_limit = 20000;  // placements tried by searches, and the like by annealing
  /// Called after each improvement and every few nodes; false stops the search.
  std::function<bool(const PlanProgress&)> progress;
};

struct PlanResult {
  MemoryPlan plan;
  std::int64_t lower_bound = 0;  // bytes: no plan is lower
  std::int64_t nodes = 0;
  bool proved_optimal() const { return plan.height == lower_bound; }
};

/// Best fit, then depth-first searches and annealing below the lowest plan so far
/// (docs/planner.md), on one thread. Deterministic unless `progress` stops it; equal for problems
/// that differ in order, direction of time, or units. Above 8192 buffers best fit alone.
/// @throws InvalidArgument on a negative size, an alignment below 1, or sizes that exceed 2^62
PlanResult solve_memory_plan(std::span<const PlannedBuffer> problem,
                             const PlanOptions& options = {});

/// The largest sum of sizes in use at one instant: no plan is lower.
/// @throws InvalidArgument on a negative size or sizes that exceed 2^62
std::int64_t maximum_load(std::span<const PlannedBuffer> problem);

/// The plan that a small, fixed number of nodes finds: what compilation uses. Offsets are multiples
/// of `alignment`. Deterministic: depends on the problem alone.
MemoryPlan plan_memory(std::span<const PlannedBuffer> problem, std::int64_t alignment);

/// Puts further buffers into the gaps of a plan, the largest first, without raising its height.
/// @param problem the buffers of `fixed`, then the further ones
/// @return offsets of all; -1 for those that fit nowhere
MemoryPlan fill_gaps(std::span<const PlannedBuffer> problem, const MemoryPlan& fixed,
                     std::int64_t alignment);

/// Shares no code with the solver; O(n log n).
/// @throws Error naming two buffers that are in use together and overlap, or one that is misplaced.
void validate(std::span<const PlannedBuffer> problem, const MemoryPlan& plan,
              std::int64_t alignment);

}  // namespace ashlar
