// Philox4x32-10, a counter-based random generator: the n-th number is a pure function of (key,
// counter), so any rank can make any part of a sequence (Salmon, Moraes, Dror, Shaw, "Parallel
// random numbers: as easy as 1, 2, 3", SC'11, section 3.3). Integer results are the same on host
// and device.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace ashlar {

/// Four independent uniform 32-bit words.
using RandomWords = std::array<std::uint32_t, 4>;

namespace detail {

struct PhiloxRound {
  RandomWords counter;
  std::uint32_t key0;
  std::uint32_t key1;
};

constexpr PhiloxRound philox_round(const PhiloxRound& r) {
  const std::uint64_t a = std::uint64_t{0xD2511F53U} * r.counter[0];
  const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * r.counter[2];
  return {
      {static_cast<std::uint32_t>(b >> 32) ^ r.counter[1] ^ r.key0, static_cast<std::uint32_t>(b),
       static_cast<std::uint32_t>(a >> 32) ^ r.counter[3] ^ r.key1, static_cast<std::uint32_t>(a)},
      r.key0 + 0x9E3779B9U,
      r.key1 + 0xBB67AE85U};
}

}  // namespace detail

/// Philox4x32-10 of a 128-bit counter under a 64-bit key, least significant word first.
constexpr RandomWords philox(const RandomWords& counter, std::uint64_t key) {
  detail::PhiloxRound state{counter, static_cast<std::uint32_t>(key),
                            static_cast<std::uint32_t>(key >> 32)};
  for (int round = 0; round < 10; ++round) state = detail::philox_round(state);
  return state.counter;
}

/// The words of block `index` of stream `stream` under `key`; element e of a stream is word e % 4
/// of block e / 4.
constexpr RandomWords philox(std::uint64_t key, std::uint64_t stream, std::uint64_t index) {
  return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                 static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
                key);
}

/// A multiple of 2^-24 in [0, 1), from the upper 24 bits.
constexpr float uniform(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24F; }

/// Two independent standard normals from two words (Box and Muller 1958), computed in double and
/// rounded once.
inline std::array<float, 2> normal_pair(std::uint32_t first, std::uint32_t second) {
  const double u = (static_cast<double>(first) + 1) * 0x1p-32;  // (0, 1]: the logarithm is finite
  const double angle = 2 * std::numbers::pi * 0x1p-32 * static_cast<double>(second);
  const double radius = std::sqrt(-2 * std::log(u));
  return {static_cast<float>(radius * std::cos(angle)),
          static_cast<float>(radius * std::sin(angle))};
}

/// Four independent standard normals.
inline std::array<float, 4> normal(const RandomWords& words) {
  const auto [a, b] = normal_pair(words[0], words[1]);
  const auto [c, d] = normal_pair(words[2], words[3]);
  return {a, b, c, d};
}

}  // namespace ashlar
