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
  SharedMemory(std::size_t dynamic_bytes, Order order);

  /// Forgets the arrays of the block before. @returns the dynamic array; null where it has no
  /// bytes.
  void* begin_block();
  /// A static array, aligned to 16. @throws std::length_error if a block has more than 16 KiB.
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

  void* place(std::size_t bytes);

  std::size_t dynamic_bytes_;
  GuardedMemory memory_;
  std::byte paint_;
  std::size_t top_ = 0;
  std::size_t static_bytes_ = 0;
  std::uint64_t serial_ = 0;
  std::vector<Gap> gaps_;
};

}  // namespace emulator
