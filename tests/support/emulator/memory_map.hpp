// Global memory as the emulator knows it: each guarded buffer ends at a page that nobody may touch,
// and its margins hold a pattern, so accesses out of bounds are found in release builds too.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "emulator/order.hpp"

namespace emulator {

/// What lies around a buffer: unmapped page | margin | begin .. end | margin | unmapped page.
struct Region {
  std::byte* reserved_begin;
  std::byte* margin_begin;
  std::byte* begin;
  std::byte* end;
  std::byte* margin_end;
  std::byte* reserved_end;
  std::byte paint;
};

/// A large finite number in every float format, another one in each order: a read that strays into
/// it changes results, and changes them differently.
std::byte paint_of(Order order);

/// Owns a registered region of `bytes` bytes, aligned to 16, filled with 0xff (NaN in all formats).
class GuardedMemory {
 public:
  explicit GuardedMemory(std::size_t bytes);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;
  std::byte* data() const { return region_.begin; }

 private:
  Region region_;
};

/// All regions there are.
std::vector<Region> regions();

/// "4 bytes past the end of a buffer of 400 bytes"; empty where no buffer is near.
std::string whereabouts(const std::vector<Region>& regions, const void* address);

/// Empty, or where a margin of any buffer was written.
std::string damage();

}  // namespace emulator
