#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "base/math/philox.hpp"

using namespace ashlar;

TEST_CASE("philox: known answers of the Random123 distribution (philox4x32, 10 rounds)") {
  CHECK(philox({0, 0, 0, 0}, 0) == RandomWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t kOnes = 0xffffffff;
  CHECK(philox({kOnes, kOnes, kOnes, kOnes}, ~std::uint64_t{0}) ==
        RandomWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822) ==
        RandomWords{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("philox: block and stream fill the counter, low word first") {
  CHECK(philox(7, 0x400000003, 0x200000001) == philox({1, 2, 3, 4}, 7));
  static_assert(philox(1, 2, 3) != philox(1, 2, 4));
}

TEST_CASE("philox: uniform covers [0, 1) and never reaches 1") {
  CHECK(uniform(0) == 0.0F);
  CHECK(uniform(0xffffffff) < 1.0F);
  CHECK(uniform(0x80000000) == 0.5F);
  double sum = 0;
  for (std::uint64_t block = 0; block < 25'000; ++block)
    for (const std::uint32_t word : philox(1, 0, block)) sum += uniform(word);
  CHECK(std::abs(sum / 100'000 - 0.5) < 5 * std::sqrt(1.0 / 12 / 100'000));
}

TEST_CASE("philox: normals are finite at the ends and have the moments and tails of N(0, 1)") {
  for (const std::uint32_t word : {0U, 1U, 0xffffffffU})
    for (const float x : normal({word, word, word, word})) CHECK(std::isfinite(x));
  constexpr int kBlocks = 50'000;
  double sum = 0;
  double squares = 0;
  double fourth = 0;
  int beyond_two = 0;
  for (std::uint64_t block = 0; block < kBlocks; ++block) {
    for (const float x : normal(philox(42, 3, block))) {
      sum += x;
      squares += static_cast<double>(x) * x;
      fourth += std::pow(x, 4);
      beyond_two += std::abs(x) > 2 ? 1 : 0;
    }
  }
  constexpr double kCount = 4.0 * kBlocks;
  CHECK(std::abs(sum / kCount) < 5 / std::sqrt(kCount));
  CHECK(std::abs(squares / kCount - 1) < 5 * std::sqrt(2 / kCount));
  CHECK(std::abs(fourth / kCount - 3) < 5 * std::sqrt(96 / kCount));
  CHECK(std::abs(beyond_two / kCount - 0.0455003) < 5 * std::sqrt(0.0455 / kCount));
}

TEST_CASE("hash: FNV-1a known answers, and chaining") {
  CHECK(fnv1a64("") == 0xcbf29ce484222325ULL);
  CHECK(fnv1a64("a") == 0xaf63dc4c8601ec8cULL);
  CHECK(fnv1a64("foobar") == 0x85944171f73967e8ULL);
  CHECK(fnv1a64("bar", fnv1a64("foo")) == fnv1a64("foobar"));
}

TEST_CASE("hash: XXH64 known answers") {
  const auto of = [](const std::string& text) { return checksum(std::as_bytes(std::span(text))); };
  CHECK(of("") == 0xef46db3751d8e999ULL);
  CHECK(of("a") == 0xd24ec4f1a98c6e5bULL);
  CHECK(of("abc") == 0x44bc2cf5ad770999ULL);
  CHECK(of("Nobody inspects the spammish repetition") == 0xfbcea83c8a378bf1ULL);
}

TEST_CASE(
    "hash: a checksum does not depend on how the bytes are fed, and notices every flipped bit") {
  std::vector<std::byte> bytes(131);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37);
  const std::span all(bytes);
  const std::uint64_t whole = checksum(all);
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    Checksum sum;
    sum.update(all.first(cut));
    sum.update(all.subspan(cut));
    REQUIRE(sum.digest() == whole);
  }
  Checksum single;
  for (const std::byte& byte : bytes) single.update({&byte, 1});
  CHECK(single.digest() == whole);
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    REQUIRE(checksum(all) != whole);
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }
}
