// What a step's memory is before it is taken, and what it was after a run.
#pragma once

#include "ashlar/caching_resource.hpp"
#include "ashlar/communicator.hpp"
#include "graph/executor.hpp"
#include "sharding/compile_step.hpp"

namespace ashlar {

/// The memory that this rank's arenas lie in, and how many ranks share it.
struct Room {
  std::int64_t available = 0;
  std::int64_t ranks = 0;
};

/// The smallest reading of the ranks of a node or GPU, none of which has touched memory yet.
/// Collective.
Room survey(Communicator& communicator, Device device);

/// What a run counted, within what was taken.
/// @param allocated bytes of arenas  @param device the cache of a step on a GPU: the total is then
/// the most that it has given out, and `windows` too where that is another cache. Null: `allocated`
MemoryUse measured_memory(const CompiledStep& step, const Executor& executor,
                          std::int64_t allocated, const CachingResource* device,
                          const MemoryResource& windows);

}  // namespace ashlar
