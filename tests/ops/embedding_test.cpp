// Table look-up and its gradients.
#include <doctest/doctest.h>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

Case look_up(const Shape& tokens, std::int64_t vocabulary, std::int64_t channels,
             std::int64_t places) {
  Case c{.name = "embedding " + to_string(tokens) + " places " + std::to_string(places),
         .inputs =
             {{.shape = tokens, .low = 0, .high = static_cast<double>(vocabulary), .integer = true},
              {.shape = {vocabulary, channels}}},
         .build = [](Tracer&, Values x) {
           return std::vector{embedding(x[0], x[1], x.size() > 2 ? x[2] : Value())};
         }};
  if (places > 0) c.inputs.push_back({.shape = {places, channels}});
  c.oracle = [=](std::span<const Doubles> x) {
    Doubles y;
    const auto n = static_cast<std::size_t>(channels);
    for (std::size_t t = 0; t < x[0].size(); ++t)
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t place = t % static_cast<std::size_t>(tokens[-1]);
        y.push_back(x[1][static_cast<std::size_t>(x[0][t]) * n + i] +
                    (places > 0 ? x[2][place * n + i] : 0));
      }
    return Outputs{y};
  };
  return c;
}

}  // namespace

TEST_CASE("ops: embedding looks up tokens and positions") {
  check(look_up({2, 7}, 5, 3, 9));
  check(look_up({3, 4}, 11, 17, 4));
  check(look_up({9}, 4, 6, 0));
  check(look_up({2, 3, 4}, 700, 2, 5));
}

TEST_CASE("ops: the token gradient sums repeated tokens in token order and zeroes the rest") {
  Case c = look_up({1, 6}, 70, 600, 0);
  std::vector<Doubles> x = random_inputs(c);
  x[0] = {65, 3, 65, 65, 0, 3};
  const Doubles g = random_values(6 * 600, -1, 1, 5);
  const Doubles table =
      run(c, x, {.dtype = DType::f32, .backward = true, .cotangents = {g}}).values[1];
  for (std::size_t i = 0; i < 600; ++i) {
    const auto at = [&](std::size_t t) { return static_cast<float>(g[t * 600 + i]); };
    CHECK(table[65 * 600 + i] == (at(0) + at(2)) + at(3));
    CHECK(table[3 * 600 + i] == at(1) + at(5));
    CHECK(table[i] == at(4));
    CHECK(table[69 * 600 + i] == 0);
  }
}

TEST_CASE("ops: a token outside of the table is an error that names it") {
  Case c = look_up({1, 3}, 5, 3, 0);
  std::vector<Doubles> x = random_inputs(c);
  x[0][1] = 5;
  CHECK_THROWS_WITH_AS(run(c, x, {}), "embedding: token 5 at index 1 is not in the table of 5 rows",
                       InvalidArgument);
  x[0][1] = -1;
  CHECK_THROWS_AS(run(c, x, {}), InvalidArgument);
}

}  // namespace ashlar::test
