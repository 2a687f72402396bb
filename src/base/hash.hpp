// Hashes that guard against accidents, not attackers: FNV-1a for names and schedules, XXH64 for
// files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ashlar {

inline constexpr std::uint64_t kFnvBasis = 0xcbf29ce484222325ULL;

/// FNV-1a, 64 bits (Fowler, Noll, Vo). Chains: fnv1a64("ab") == fnv1a64("b", fnv1a64("a")).
constexpr std::uint64_t fnv1a64(std::string_view text, std::uint64_t hash = kFnvBasis) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

/// XXH64 with seed 0 (the xxHash specification by Yann Collet), fed in pieces of any size; `xxhsum
/// -H64` agrees.
class Checksum {
 public:
  void update(std::span<const std::byte> bytes);
  /// Of everything fed so far; feeding may go on.
  std::uint64_t digest() const;

 private:
  static constexpr std::size_t kStripe = 32;

  void consume(const std::byte* stripe);

  std::array<std::uint64_t, 4> lanes_{0x60EA27EEADC0B5D6ULL, 0xC2B2AE3D27D4EB4FULL, 0,
                                      0x61C8864E7A143579ULL};
  std::array<std::byte, kStripe> pending_{};
  std::uint64_t bytes_ = 0;
};

/// Checksum of one block.
std::uint64_t checksum(std::span<const std::byte> bytes);

}  // namespace ashlar
