// Memory of a GPU in which a communicator adds what ranks give to a sum. It is taken when the
// communicator is made, so that a step's plan can count it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ashlar/buffer.hpp"
#include "ashlar/communicator.hpp"

namespace ashlar::detail {

struct ReductionScratch {
  static constexpr std::int64_t kMost = std::int64_t{32} << 20;
  static constexpr std::int64_t kBlocks = 4096;  // of kNormBlock elements, added at a time
  static constexpr std::int64_t kWidest = 8;     // bytes of an element

  /// @param most for parts that wait to be added: longer ones go in pieces
  explicit ReductionScratch(int ranks, std::int64_t most = kMost)
      : parts(ranks == 1 ? 0 : std::max(most, (ranks - 1) * kNormBlock * kWidest)),
        partials(std::max<std::int64_t>(kBlocks, ranks) * kWidest) {}

  std::int64_t parts;
  std::int64_t partials;  // sums of squares of blocks; 8 bytes of each rank between sums
  std::int64_t bytes() const { return parts + partials; }
};

/// Empty for 0 bytes.
inline Buffer take_scratch(std::int64_t bytes, MemoryResource& memory, StreamRef stream) {
  return bytes == 0 ? Buffer() : Buffer(memory, bytes, Category::workspace, stream);
}

}  // namespace ashlar::detail
