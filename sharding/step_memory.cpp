#include "sharding/step_memory.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "ashlar/device_memory.hpp"

namespace ashlar {

Room survey(Communicator& communicator, Device device) {
  const bool host = device.type == DeviceType::cpu;
  const std::array<std::int64_t, 2> mine{host ? available_host_bytes() : device_bytes(device).free,
                                         device.index};
  std::vector<std::array<std::int64_t, 2>> all(static_cast<std::size_t>(communicator.size()));
  const Transfer transfer{{const_cast<std::int64_t*>(mine.data()), DType::i64, {2}},
                          {all.data(), DType::i64, {2 * communicator.size()}}};
  communicator.all_gather({&transfer, 1}, "memory").wait();
  Room room{mine[0], 0};
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const auto& [available, index] = all[static_cast<std::size_t>(rank)];
    if (!communicator.same_node(rank) || index != device.index) continue;
    ++room.ranks;
    room.available = std::min(room.available, available);
  }
  return room;
}

MemoryUse measured_memory(const CompiledStep& step, const Executor& executor,
                          std::int64_t allocated, const CachingResource* device,
                          const MemoryResource& windows) {
  const StateLayout& states = step.states;
  MemoryUse use{states.by_category(), states.by_category(), 0, 0, allocated};
  const auto add = [&](const CachingResource& cache) {
    const CachingStatistics statistics = cache.statistics();
    const std::int64_t scratch = statistics.live[static_cast<std::size_t>(Category::workspace)];
    use.peak[static_cast<std::size_t>(Category::workspace)] += scratch;
    use.at_peak[static_cast<std::size_t>(Category::workspace)] += scratch;
    use.total += statistics.peak_live_bytes;
  };
  if (device != nullptr) {
    use.total = 0;
    add(*device);
    const auto* other = dynamic_cast<const CachingResource*>(&windows);
    if (other != nullptr && other != device) add(*other);
  }
  std::int64_t load = 0;
  for (std::size_t c = 0; c < kCategories; ++c) {
    use.peak[c] += executor.live().peak()[c];
    use.at_peak[c] += executor.live().at_peak()[c];
    load += use.at_peak[c];
  }
  std::int64_t payload = 0;
  for (const auto& [name, entry] : states.entries()) payload += entry.type.bytes();
  use.padding = states.bytes(Space::state) + states.bytes(Space::state_window) - payload +
                executor.live().padding_at_peak();
  use.fragmentation = use.total - load - use.padding;
  return use;
}

}  // namespace ashlar
