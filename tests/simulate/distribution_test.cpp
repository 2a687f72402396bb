// Named distributions against their textbook's distribution functions, and draws computed
// elsewhere.
#include "simulate/distribution.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "ashlar/error.hpp"
#include "simulate/simulation.hpp"

namespace ashlar::simulate {
namespace {

std::vector<double> draws(const std::string& text, std::uint64_t count) {
  const Distribution distribution = *Distribution::parse(text);
  std::vector<double> all;
  for (std::uint64_t n = 0; n < count; ++n) all.push_back(distribution(philox(21, 3, n)));
  return all;
}

/// The largest distance of the draws' distribution from `cdf` (Kolmogorov and Smirnov).
double distance(std::vector<double> sample, const std::function<double(double)>& cdf) {
  std::ranges::sort(sample);
  const auto count = static_cast<double>(sample.size());
  double worst = 0;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    const double at = cdf(sample[i]), below = static_cast<double>(i) / count;
    worst = std::max({worst, at - below, below + 1 / count - at});
  }
  return worst;
}

double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

std::vector<double> factors(const std::string& text, int ranks, std::uint64_t seed) {
  std::vector<double> all;
  for (const RankClass& c : Stragglers(text, ranks, seed).classes(false).classes)
    all.push_back(c.slowdown);
  return all;
}

}  // namespace

TEST_CASE("distribution: 20,000 draws lie as the distribution function says") {
  constexpr std::uint64_t kCount = 20'000;
  const double far = 1.63 / std::sqrt(static_cast<double>(kCount));  // one sample in a hundred
  const double s = 0.2;
  CHECK(distance(draws("normal:0.2", kCount), [&](double x) { return normal_cdf((x - 1) / s); }) <
        far);
  CHECK(distance(draws("lognormal:0.2", kCount),
                 [&](double x) { return normal_cdf(std::log(x) / s + s / 2); }) < far);
  CHECK(distance(draws("uniform:0.5:3", kCount), [](double x) { return (x - 0.5) / 2.5; }) < far);
  CHECK(distance(draws("exponential:0.3", kCount),
                 [](double x) { return 1 - std::exp(-(x - 1) / 0.3); }) < far);
}

TEST_CASE("distribution: the means are 1, 1, the middle, and 1 plus the tail's") {
  for (const auto& [text, mean] :
       {std::pair{"normal:0.2", 1.0}, std::pair{"lognormal:0.5", 1.0},
        std::pair{"uniform:0.5:3", 1.75}, std::pair{"exponential:0.3", 1.3}}) {
    CAPTURE(text);
    double sum = 0;
    for (const double x : draws(text, 40'000)) sum += x;
    CHECK(sum / 40'000 == doctest::Approx(mean).epsilon(0.01));
  }
}

TEST_CASE("distribution: no draw is more than the most, none less than a tenth") {
  constexpr RandomWords kEnds[] = {{0, 0, 0, 0},
                                   {0, 0x80000000U, 0, 0},
                                   {0xFFFFFFFFU, 0, 0, 0},
                                   {0xFFFFFFFFU, 0xFFFFFFFFU, 0, 0}};
  for (const char* text : {"normal:1", "lognormal:1", "uniform:0.1:1000", "exponential:40"}) {
    CAPTURE(text);
    const Distribution distribution = *Distribution::parse(text);
    std::vector<double> all = draws(text, 5'000);
    for (const RandomWords& words : kEnds) all.push_back(distribution(words));
    CHECK(std::ranges::max(all) <= distribution.most());
    CHECK(std::ranges::min(all) >= 0.1);
  }
}

TEST_CASE("distribution: ranks' factors are the same on every machine") {
  const auto check = [](const char* text, std::vector<double> expected) {
    for (double& factor : expected) factor /= 65536;
    CHECK(factors(text, 4, 9) == expected);
  };
  check("normal:0.1", {78451, 59585, 68161, 82278});
  check("lognormal:0.25", {103962, 50619, 70210, 120302});
  check("uniform:0.5:2", {46725, 94682, 122628, 36530});
  check("exponential:0.3", {103916, 74626, 67302, 129691});
}

TEST_CASE("distribution: a rank's factor depends on seed and rank alone") {
  const auto few = factors("lognormal:0.1", 8, 5), many = factors("lognormal:0.1", 64, 5);
  CHECK(std::equal(few.begin(), few.end(), many.begin()));
  CHECK(factors("lognormal:0.1", 8, 6) != few);
}

TEST_CASE("distribution: what is none is refused, other texts are left to others") {
  for (const char* text : {"normal", "normal:", "normal:2", "normal:-0.1", "normal:0.1:1",
                           "lognormal:nan", "uniform:1", "uniform:2:1", "uniform:0:1",
                           "uniform:1:1e9", "exponential:1e3", "exponential:x", "uniform:1:2:3"}) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS(Distribution::parse(text), doctest::Contains("give"), InvalidArgument);
  }
  for (const char* text : {"", "2x1.3", "gauss:1", "/tmp/normal:1", "Normal:0.1"})
    CHECK(!Distribution::parse(text));
  CHECK(!Distribution::parse("normal:0")->varies());
}

}  // namespace ashlar::simulate
