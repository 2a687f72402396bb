// Free blocks of one pool and one stream by size: best fit in a few instructions.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "memory/caching/block.hpp"

namespace ashlar::detail {

/// Smallest size that all requests down to it are rounded in.
inline constexpr std::int64_t kGranule = 512;

/// Size classes: every multiple of 512 B up to 8 KiB, then 16 per power of two.
constexpr std::size_t class_of(std::int64_t bytes) {
  const auto granules = static_cast<std::uint64_t>(bytes / kGranule);
  if (granules < 16) return granules;
  const auto power = static_cast<std::size_t>(std::bit_width(granules)) - 1;
  return (power - 3) * 16 + ((granules >> (power - 4)) & 15);
}

/// Rounds up to the smallest size of a class.
constexpr std::int64_t round_to_class(std::int64_t bytes) {
  const auto step = std::max<std::int64_t>(
      kGranule, static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(bytes)) / 16));
  return (bytes + step - 1) / step * step;
}

/// One list per class, ascending by size, the block freed last first among equals; a bit per list
/// that is not empty.
class Bins {
 public:
  void insert(Block* block) noexcept {
    const std::size_t index = class_of(block->bytes);
    Block** link = &lists_[index];
    Block* previous = nullptr;
    while (*link != nullptr && (*link)->bytes < block->bytes) {
      previous = *link;
      link = &(*link)->bin_next;
    }
    block->bin_previous = previous;
    block->bin_next = *link;
    if (block->bin_next != nullptr) block->bin_next->bin_previous = block;
    *link = block;
    bits_[index / 64] |= std::uint64_t{1} << index % 64;
  }

  void remove(Block* block) noexcept {
    if (block->bin_next != nullptr) block->bin_next->bin_previous = block->bin_previous;
    if (block->bin_previous != nullptr) {
      block->bin_previous->bin_next = block->bin_next;
      return;
    }
    const std::size_t index = class_of(block->bytes);
    lists_[index] = block->bin_next;
    if (block->bin_next == nullptr) bits_[index / 64] &= ~(std::uint64_t{1} << index % 64);
  }

  /// The smallest block of at least `bytes`; null if none.
  Block* best_fit(std::int64_t bytes) const noexcept {
    const std::size_t index = class_of(bytes);
    for (Block* block = lists_[index]; block != nullptr; block = block->bin_next)
      if (block->bytes >= bytes) return block;
    return first_from(index + 1);
  }

  Block* largest() const noexcept {
    for (std::size_t word = kWords; word-- > 0;) {
      if (bits_[word] == 0) continue;
      Block* block = lists_[word * 64 + static_cast<std::size_t>(std::bit_width(bits_[word])) - 1];
      while (block->bin_next != nullptr) block = block->bin_next;
      return block;
    }
    return nullptr;
  }

 private:
  static constexpr std::size_t kWords = 14;  // classes of sizes below 2^63

  Block* first_from(std::size_t index) const noexcept {
    std::size_t word = index / 64;
    std::uint64_t bits = word < kWords ? bits_[word] & (~std::uint64_t{0} << index % 64) : 0;
    while (bits == 0) {
      if (++word >= kWords) return nullptr;
      bits = bits_[word];
    }
    return lists_[word * 64 + static_cast<std::size_t>(std::countr_zero(bits))];
  }

  std::array<Block*, kWords * 64> lists_{};
  std::array<std::uint64_t, kWords> bits_{};
};

}  // namespace ashlar::detail
