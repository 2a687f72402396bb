// Initial values: independent of the split, standard normal where they should be, different per
// name and seed.
#include "sharding/initialize.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "ashlar/error.hpp"

using namespace ashlar;

namespace {

Parameter normal(const char* name, std::int64_t elements, double deviation = 1) {
  return {.name = name,
          .shape = {elements},
          .initializer = {.kind = Initializer::Kind::normal, .value = deviation}};
}

std::vector<float> draw(const Parameter& parameter, std::uint64_t seed, std::int64_t first,
                        std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  initialize(parameter, seed, first, {values.data(), DType::f32, {count}});
  return values;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("initialize: the same values whatever the split") {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    const std::int64_t n = random() % 300;
    const Parameter parameter = normal("h.0.attn.c_attn.weight", n, 0.02);
    const std::vector<float> whole = draw(parameter, 7, 0, n);
    std::vector<float> parts;
    for (std::int64_t first = 0; first < n;) {
      const std::int64_t count = std::min<std::int64_t>(n - first, random() % 40);
      const auto part = draw(parameter, 7, first, count);
      parts.insert(parts.end(), part.begin(), part.end());
      first += count;
    }
    REQUIRE(same_bits(whole, parts));
  }
}

TEST_CASE("initialize: normal values have the moments and tails of the normal distribution") {
  constexpr std::int64_t n = 400000;
  const auto values = draw(normal("wte.weight", n, 0.5), 3, 0, n);
  double mean = 0, square = 0, cube = 0, fourth = 0, neighbours = 0;
  int beyond_two = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = values[i] / 0.5;
    mean += x / n, square += x * x / n, cube += x * x * x / n, fourth += x * x * x * x / n;
    if (i > 0) neighbours += x * values[i - 1] / 0.5 / n;
    beyond_two += std::abs(x) > 2;
  }
  // Each bound is five standard errors of the statistic.
  const double error = 5 / std::sqrt(static_cast<double>(n));
  CHECK(std::abs(mean) < error);
  CHECK(std::abs(square - 1) < error * std::sqrt(2.0));
  CHECK(std::abs(cube) < error * std::sqrt(15.0));
  CHECK(std::abs(fourth - 3) < error * std::sqrt(96.0));
  CHECK(std::abs(neighbours) < error);
  CHECK(std::abs(beyond_two / static_cast<double>(n) - 0.0455003) < error * 0.21);
}

TEST_CASE("initialize: names and seeds draw different values") {
  const auto base = draw(normal("a", 64), 1, 0, 64);
  CHECK(same_bits(base, draw(normal("a", 64), 1, 0, 64)));
  for (const auto& other : {draw(normal("b", 64), 1, 0, 64), draw(normal("a", 64), 2, 0, 64)})
    CHECK(std::ranges::mismatch(base, other).in1 == base.begin());
}

TEST_CASE("initialize: constants and narrow types") {
  Parameter ones{.name = "ln.weight", .shape = {5}, .initializer = {.value = 1}};
  CHECK(draw(ones, 9, 1, 4) == std::vector<float>(4, 1.0F));
  const Parameter parameter = normal("w", 33);
  const auto wide = draw(parameter, 4, 0, 33);
  std::vector<bf16> narrow(33);
  initialize(parameter, 4, 0, {narrow.data(), DType::bf16, {33}});
  for (std::size_t i = 0; i < 33; ++i) CHECK(narrow[i].bits == bf16(wide[i]).bits);
}

TEST_CASE("initialize: a range outside the parameter is refused by name") {
  CHECK_THROWS_WITH_AS(draw(normal("w", 4), 1, 2, 3),
                       "initialize: parameter 'w' has no elements [2, 5)", InvalidArgument);
  CHECK_THROWS_AS(draw(normal("w", 4), 1, -1, 2), InvalidArgument);
}
