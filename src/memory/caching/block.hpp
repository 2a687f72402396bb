// Blocks: what the caching allocator knows of its memory, kept outside of it.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "ashlar/category.hpp"

namespace ashlar::detail {

enum class BlockState : std::uint8_t { unmapped, free, live };

/// A span of a range. Blocks of a range lie side by side: `next` begins where this one ends.
/// A free block may be reused by work that comes after free number `ticket` of its stream.
struct Block {
  std::byte* begin = nullptr;
  std::int64_t bytes = 0;
  Block* previous = nullptr;  // by address
  Block* next = nullptr;
  Block* bin_previous = nullptr;  // in its bin, while free
  Block* bin_next = nullptr;
  std::uint64_t ticket = 0;
  std::uint32_t stream = 0;  // who freed it last, or whom it was allocated for
  BlockState state = BlockState::unmapped;
  Category category = Category::workspace;
  std::uint8_t pool = 0;
  std::int64_t requested = 0;  // while live

  std::byte* end() const { return begin + bytes; }
  bool is(BlockState wanted) const { return state == wanted; }
};

/// Blocks are recycled, never returned: in a steady state nothing is allocated. There is room for
/// every block among the spare ones, so giving back cannot fail.
class BlockStore {
 public:
  Block* take() {
    if (spare_.empty()) {
      if (spare_.capacity() <= blocks_.size()) spare_.reserve(2 * blocks_.size() + 64);
      return &blocks_.emplace_back();
    }
    Block* block = spare_.back();
    spare_.pop_back();
    *block = Block{};
    return block;
  }
  void give_back(Block* block) noexcept { spare_.push_back(block); }

 private:
  std::deque<Block> blocks_;
  std::vector<Block*> spare_;
};

/// Live blocks by address: open addressing, linear probes, deletion by shifting back.
class LiveTable {
 public:
  LiveTable() : slots_(1024) {}

  /// Makes room for one more, so that insert cannot fail.
  void reserve_one() {
    if (2 * (size_ + 1) > slots_.size()) grow();
  }
  void insert(Block* block) noexcept {
    std::size_t i = home(block->begin);
    while (slots_[i].block != nullptr) i = after(i);
    slots_[i] = {block->begin, block};
    ++size_;
  }
  /// Null when nothing live begins there.
  Block* extract(const void* begin) noexcept {
    std::size_t i = home(begin);
    for (; slots_[i].begin != begin; i = after(i))
      if (slots_[i].block == nullptr) return nullptr;
    Block* found = slots_[i].block;
    close_gap(i);
    --size_;
    return found;
  }
  std::size_t size() const { return size_; }

 private:
  struct Slot {
    const void* begin = nullptr;
    Block* block = nullptr;
  };

  std::size_t after(std::size_t i) const { return (i + 1) & (slots_.size() - 1); }
  std::size_t home(const void* begin) const {
    const auto address = reinterpret_cast<std::uintptr_t>(begin);
    return ((address >> 9) * 0x9E3779B97F4A7C15U >> 32) & (slots_.size() - 1);
  }
  void close_gap(std::size_t gap) noexcept {
    for (std::size_t i = after(gap); slots_[i].block != nullptr; i = after(i)) {
      const std::size_t from_home = (i - home(slots_[i].begin)) & (slots_.size() - 1);
      const std::size_t from_gap = (i - gap) & (slots_.size() - 1);
      if (from_home < from_gap) continue;
      slots_[gap] = slots_[i];
      gap = i;
    }
    slots_[gap] = {};
  }
  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    size_ = 0;
    for (const Slot& slot : old)
      if (slot.block != nullptr) insert(slot.block);
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

}  // namespace ashlar::detail
