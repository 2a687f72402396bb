#include "memory/plan/cores.hpp"

#include <algorithm>
#include <cmath>

namespace ashlar::plan {
namespace {

constexpr std::size_t kMostInCore = 4096;

/// By item: the largest load of its sections, as a share of the problem's.
std::vector<double> load_shares(const Problem& problem) {
  std::vector<double> shares;
  for (const std::int64_t load : largest_loads(problem))
    shares.push_back(static_cast<double>(load) / static_cast<double>(problem.load));
  return shares;
}

/// The core where it was planned, then the others, in steps of falling load, the largest areas
/// first. @return false when stopped
bool place_around(Packing& packing, const Problem& problem, const std::vector<std::size_t>& core,
                  const std::vector<std::int64_t>& offsets, std::vector<std::size_t> others,
                  const std::function<double(std::size_t)>& step,
                  const std::function<bool(std::int64_t)>& go_on) {
  for (std::size_t c = 0; c < core.size(); ++c) packing.place(core[c], offsets[c]);
  const auto key = [&](std::size_t id) {
    const Item& item = problem.items[id];
    return std::pair(step(id), static_cast<double>(item.size) * item.width());
  };
  std::ranges::stable_sort(others, std::greater<>(), key);
  return packing.place_all(others, go_on);
}

}  // namespace

void fit_around_cores(
    const Problem& problem, std::int64_t height,
    const std::function<std::vector<std::int64_t>(const std::vector<PlannedBuffer>&)>& solve,
    const Incumbent& accept, const std::function<bool(std::int64_t)>& go_on) {
  const std::vector<double> shares = load_shares(problem);
  for (const double share : {0.99, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8}) {
    std::vector<std::size_t> core, others;
    for (std::size_t id = 0; id < problem.items.size(); ++id)
      (shares[id] > share ? core : others).push_back(id);
    if (core.size() > kMostInCore || !go_on(0)) return;
    std::vector<PlannedBuffer> buffers;
    for (const std::size_t id : core) {
      const Item& item = problem.items[id];
      buffers.push_back({item.first, item.last, item.size});
    }
    const std::vector<std::int64_t> offsets = solve(buffers);
    for (const double width : {0.0, 0.02, 0.04}) {
      const auto step = [&](std::size_t id) {
        return width > 0 ? std::floor(shares[id] / width) : 0;
      };
      Packing packing(problem.items, problem.sections);
      if (!place_around(packing, problem, core, offsets, others, step, go_on)) return;
      if (packing.height() >= height) continue;
      height = packing.height();
      accept(packing.offsets());
    }
  }
}

}  // namespace ashlar::plan
