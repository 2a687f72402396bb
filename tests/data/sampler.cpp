#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "ashlar/data.hpp"
#include "ashlar/error.hpp"
#include "base/math/philox.hpp"
#include "support/temporary_folder.hpp"

using ashlar::InvalidArgument;
using ashlar::Sampler;

TEST_CASE("data: Philox gives the published known answers") {
  using Words = std::array<std::uint32_t, 4>;
  CHECK(ashlar::philox({0, 0, 0, 0}, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(ashlar::philox({~0U, ~0U, ~0U, ~0U}, ~std::uint64_t{0}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(ashlar::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE(
    "data: synthetic tokens are a function of seed and position, uniform over the vocabulary") {
  const auto source = ashlar::synthetic_tokens(100000, 11, 42);
  std::vector<std::int32_t> whole(100000);
  source->copy(0, whole);
  for (const std::int64_t begin : {0, 1, 2, 3, 5, 1022, 99990}) {
    std::vector<std::int32_t> part(10);
    source->copy(begin, part);
    CHECK(std::equal(part.begin(), part.end(), whole.begin() + begin));
  }
  std::vector<int> counts(11);
  for (const auto token : whole) ++counts.at(static_cast<std::size_t>(token));
  double chi_squared = 0;
  for (const int count : counts) chi_squared += (count - 100000 / 11.0) * (count - 100000 / 11.0);
  CHECK(chi_squared / (100000 / 11.0) < 30);  // 10 degrees of freedom: 29.6 at 0.1 %

  std::vector<std::int32_t> other(100000);
  ashlar::synthetic_tokens(100000, 11, 43)->copy(0, other);
  CHECK(other != whole);
  CHECK_THROWS_AS(source->copy(99999, std::span(other).first(2)), InvalidArgument);
  CHECK_THROWS_AS(ashlar::synthetic_tokens(1, 0, 0), InvalidArgument);
}

TEST_CASE("data: windows lie within the source and reach both of its ends") {
  const auto source = ashlar::synthetic_tokens(20, 256, 1);
  const Sampler sampler(*source, 17, 7);
  std::set<std::int64_t> seen;
  for (int step = 1; step <= 50; ++step) seen.insert(sampler.start(step, 0, 0));
  CHECK(seen == std::set<std::int64_t>{0, 1, 2, 3});
  CHECK(Sampler(*source, 20, 7).start(3, 0, 0) == 0);
}

TEST_CASE("data: a window depends on seed, step, micro-batch and sample, and on nothing else") {
  const auto source = ashlar::synthetic_tokens(std::int64_t{1} << 50, 256, 1);
  const Sampler sampler(*source, 257, 7);
  std::set<std::int64_t> seen;
  for (int step = 1; step <= 6; ++step)
    for (int micro = 0; micro < 5; ++micro)
      for (int sample = 0; sample < 8; ++sample) seen.insert(sampler.start(step, micro, sample));
  CHECK(seen.size() == 6 * 5 * 8);
  CHECK(Sampler(*source, 257, 8).start(1, 0, 0) != sampler.start(1, 0, 0));
  CHECK(Sampler(*source, 257, 7).start(4, 3, 2) == sampler.start(4, 3, 2));
}

TEST_CASE("data: ranks draw the samples that one rank would draw alone") {
  const auto source = ashlar::synthetic_tokens(1000000, 256, 1);
  const Sampler sampler(*source, 65, 3);
  std::vector<std::int64_t> alone;
  for (int sample = 0; sample < 12; ++sample) alone.push_back(sampler.start(9, 1, sample));
  for (const int batch : {1, 2, 3, 4, 6}) {
    std::vector<std::int64_t> together;
    for (int rank = 0; rank < 12 / batch; ++rank) {
      const Sampler own(*source, 65, 3);
      for (int i = 0; i < batch; ++i) together.push_back(own.start(9, 1, rank * batch + i));
    }
    CHECK(together == alone);
  }
}

TEST_CASE("data: too short a source is named with what was found and what is needed") {
  const TemporaryFolder folder;
  const std::vector<std::filesystem::path> paths{folder.write("short.txt", "twelve bytes")};
  const ashlar::Corpus corpus = ashlar::open_text(paths);
  const std::string message = message_of<InvalidArgument>([&] { Sampler(*corpus.train, 257, 0); });
  CHECK(contains(message, "short.txt: 12 tokens found, 257 needed"));
  CHECK_THROWS_AS(ashlar::validation_windows(*corpus.train, 13, 4), InvalidArgument);
  CHECK_NOTHROW(Sampler(*corpus.train, 12, 0));
}

TEST_CASE("data: validation windows are fixed, share at most a token and stay inside") {
  for (const std::int64_t size : {9, 10, 17, 100, 1001}) {
    const auto source = ashlar::synthetic_tokens(size, 256, 1);
    for (const std::int64_t most : {1, 2, 3, 1000}) {
      const auto starts = ashlar::validation_windows(*source, 9, most);
      REQUIRE(!starts.empty());
      CHECK(static_cast<std::int64_t>(starts.size()) == std::min(most, (size - 9) / 8 + 1));
      for (std::size_t i = 1; i < starts.size(); ++i) CHECK(starts[i] - starts[i - 1] >= 8);
      CHECK(starts.front() == 0);
      CHECK(starts.back() + 9 <= size);
    }
  }
}

TEST_CASE("data: the target is the input one token later") {
  const auto source = ashlar::synthetic_tokens(50, 256, 1);
  std::vector<std::int32_t> whole(50), input(9), target(9);
  source->copy(0, whole);
  ashlar::copy_sequence(*source, 40, input, target);
  CHECK(std::equal(input.begin(), input.end(), whole.begin() + 40));
  CHECK(std::equal(target.begin(), target.end(), whole.begin() + 41));
  CHECK_THROWS_AS(ashlar::copy_sequence(*source, 41, input, target), InvalidArgument);
}
