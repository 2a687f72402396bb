// A set of small integers of fixed capacity.
#pragma once

#include <cstdint>
#include <vector>

namespace ashlar::plan {

class Bits {
 public:
  Bits() = default;
  explicit Bits(std::size_t capacity) : words_((capacity + 63) / 64) {}

  void clear() { words_.assign(words_.size(), 0); }
  void set(int i) { words_[word(i)] |= bit(i); }
  bool test(int i) const { return (words_[word(i)] & bit(i)) != 0; }
  bool meets(const Bits& other) const {
    for (std::size_t w = 0; w < words_.size(); ++w)
      if ((words_[w] & other.words_[w]) != 0) return true;
    return false;
  }
  /// @return whether there was anything to add
  bool add(const Bits& other) {
    std::uint64_t added = 0;
    for (std::size_t w = 0; w < words_.size(); ++w) {
      added |= other.words_[w] & ~words_[w];
      words_[w] |= other.words_[w];
    }
    return added != 0;
  }
  Bits& operator|=(const Bits& other) {
    add(other);
    return *this;
  }

 private:
  static std::size_t word(int i) { return static_cast<std::size_t>(i) / 64; }
  static std::uint64_t bit(int i) { return 1ULL << (i % 64); }
  std::vector<std::uint64_t> words_;
};

}  // namespace ashlar::plan
