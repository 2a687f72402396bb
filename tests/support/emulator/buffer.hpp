// Global memory of a test: elements with unmapped pages around them. See memory_map.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include "emulator/memory_map.hpp"

namespace emulator {

/// `size` elements of T, NaN until written. data() is aligned to 16 bytes. Made inside a run of
/// run_in_all_orders, its margins differ from order to order.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit Buffer(std::size_t size) : memory_(size * sizeof(T)), size_(size) {}
  explicit Buffer(std::span<const T> values) : Buffer(values.size()) {
    std::copy(values.begin(), values.end(), data());
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(std::span<const T>(values)) {}

  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  std::size_t size() const { return size_; }
  std::vector<T> to_vector() const { return {data(), data() + size_}; }

 private:
  GuardedMemory memory_;
  std::size_t size_;
};

}  // namespace emulator
