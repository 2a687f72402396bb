// A block's shared memory: NaN at the start of each block, a painted gap after each object, and
// unmapped pages around all of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "emulator/memory_map.hpp"

namespace emulator {

class SharedMemory {
 public:
  explicit SharedMemory(Order order);

  /// Forgets all objects.
  void begin_block();
  /// Aligned to 16 and filled with 0xff. @throws std::length_error beyond 227 KiB.
  void* allocate(std::size_t bytes);
  /// True if a gap was written.
  bool damaged() const;
  /// Differs between any two blocks that run on one thread.
  std::uint64_t serial() const { return serial_; }

 private:
  struct Gap {
    std::byte* begin;
    std::byte* end;
  };

  GuardedMemory memory_;
  std::byte paint_;
  std::size_t top_ = 0;
  std::size_t used_ = 0;
  std::uint64_t serial_ = 0;
  std::vector<Gap> gaps_;
};

}  // namespace emulator
