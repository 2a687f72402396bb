// A lane that touches unmapped memory becomes an error with its thread and the nearest buffer.
#pragma once

namespace emulator {

class Block;

/// While it lives, a segmentation fault of a lane of `block` on this thread goes to Block::fault.
class FaultScope {
 public:
  explicit FaultScope(Block& block);
  ~FaultScope();
  FaultScope(const FaultScope&) = delete;
  FaultScope& operator=(const FaultScope&) = delete;
};

}  // namespace emulator
