#include "cuda/launch.hpp"

#include <fmt/core.h>

#include <string_view>

#include "ashlar/error.hpp"

namespace ashlar::cuda {

void validate_launch(Extents grid, Extents block, std::size_t shared_bytes,
                     std::source_location at) {
  const auto refuse = [&](std::string_view why) {
    throw InvalidArgument(fmt::format(
        "{}:{}: a launch of ({}, {}, {}) blocks of ({}, {}, {}) threads with {} bytes of shared "
        "memory {}",
        at.file_name(), at.line(), grid.x, grid.y, grid.z, block.x, block.y, block.z, shared_bytes,
        why));
  };
  if (grid.count() == 0 || block.count() == 0) refuse("is empty; skip it when there is no work");
  if (block.x > kBlockThreads || block.y > kBlockThreads || block.z > kBlockDepth ||
      block.count() > kBlockThreads)
    refuse("has more than 1024 threads in a block, or 64 in z; use more blocks");
  if (grid.x > kGridWidth || grid.y > kGridHeight || grid.z > kGridHeight)
    refuse("has more than 65535 blocks in y or z; put the long extent in x");
  if (shared_bytes > kLargestSharedBytes) refuse("exceeds 227 KiB of shared memory; use less");
}

}  // namespace ashlar::cuda
