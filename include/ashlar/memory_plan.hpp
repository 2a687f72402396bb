// Offline packing: buffers with known lifetimes get offsets in one arena. Problem and solution are
// plain data.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ashlar {

/// One buffer: in use during [lower, upper), a half-open interval of instructions; size in bytes.
struct PlannedBuffer {
  std::int64_t lower = 0;
  std::int64_t upper = 0;
  std::int64_t size = 0;
};

/// Byte offsets, one per buffer, and the arena's height: the largest offset + size.
struct MemoryPlan {
  std::vector<std::int64_t> offsets;
  std::int64_t height = 0;
};

/// The largest sum of sizes in use at one instant: no plan is lower.
std::int64_t maximum_load(std::span<const PlannedBuffer> problem);

/// Best fit over several orders (size, area, start), the lowest plan kept. Offsets are multiples of
/// `alignment`. Deterministic: depends on the problem alone.
MemoryPlan plan_memory(std::span<const PlannedBuffer> problem, std::int64_t alignment);

/// Puts further buffers into the gaps of a plan, the largest first, without raising its height.
/// @param problem the buffers of `fixed`, then the further ones
/// @return offsets of all; -1 for those that fit nowhere
MemoryPlan fill_gaps(std::span<const PlannedBuffer> problem, const MemoryPlan& fixed,
                     std::int64_t alignment);

/// @throws Error naming two buffers that are in use together and overlap, or one that is misplaced.
void validate(std::span<const PlannedBuffer> problem, const MemoryPlan& plan,
              std::int64_t alignment);

}  // namespace ashlar
