// The plan's judge: a sweep over time with the live buffers ordered by offset. Shares nothing with
// the solver.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "ashlar/error.hpp"
#include "ashlar/memory_plan.hpp"

namespace ashlar {
namespace {

void require_inside(const PlannedBuffer& buffer, std::size_t id, std::int64_t offset,
                    std::int64_t height, std::int64_t alignment) {
  if (offset >= 0 && offset % alignment == 0 && buffer.size <= height - offset) return;
  throw Error(fmt::format("memory plan: buffer {} at {} is misaligned or outside of [0, {})", id,
                          offset, height));
}

[[noreturn]] void reject(std::size_t a, std::size_t b) {
  throw Error(fmt::format("memory plan: buffers {} and {} are in use together and overlap",
                          std::min(a, b), std::max(a, b)));
}

}  // namespace

void validate(std::span<const PlannedBuffer> problem, const MemoryPlan& plan,
              std::int64_t alignment) {
  if (plan.offsets.size() != problem.size())
    throw Error("memory plan: one offset per buffer is needed");
  std::vector<std::tuple<std::int64_t, bool, std::size_t>> events;  // at one instant ends first
  for (std::size_t id = 0; id < problem.size(); ++id) {
    const PlannedBuffer& buffer = problem[id];
    require_inside(buffer, id, plan.offsets[id], plan.height, alignment);
    if (buffer.upper <= buffer.lower || buffer.size <= 0) continue;
    events.emplace_back(buffer.lower, true, id);
    events.emplace_back(buffer.upper, false, id);
  }
  std::ranges::sort(events);
  std::map<std::int64_t, std::size_t> live;  // by offset
  for (const auto& [instant, starts, id] : events) {
    const std::int64_t offset = plan.offsets[id];
    if (!starts) {
      live.erase(offset);
      continue;
    }
    const auto above = live.lower_bound(offset);
    if (above != live.end() && above->first < offset + problem[id].size) reject(above->second, id);
    if (above != live.begin()) {
      const auto below = std::prev(above);
      if (below->first + problem[below->second].size > offset) reject(below->second, id);
    }
    live.emplace(offset, id);
  }
}

}  // namespace ashlar
