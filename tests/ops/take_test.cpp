// Rows by index.
#include <doctest/doctest.h>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

Case taken(const Shape& table, const Shape& indices) {
  return {.name = "take " + to_string(indices) + " of " + to_string(table),
          .inputs = {{.shape = table},
                     {.shape = indices,
                      .low = 0,
                      .high = static_cast<double>(table[0]),
                      .integer = true}},
          .build = [](Tracer&, Values x) { return std::vector{take(x[0], x[1])}; },
          .oracle =
              [=](std::span<const Doubles> x) {
                const auto size = static_cast<std::size_t>(table.elements() / table[0]);
                Doubles y;
                for (const double index : x[1])
                  for (std::size_t i = 0; i < size; ++i)
                    y.push_back(x[0][static_cast<std::size_t>(index) * size + i]);
                return Outputs{y};
              }};
}

}  // namespace

TEST_CASE("ops: take picks rows of any rank, repeated or not") {
  check(taken({7, 5}, {4}));
  check(taken({4, 2, 3}, {2, 5}));
  check(taken({3}, {8}));
  check(taken({90, 4}, Shape()));
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {4, 2, 3}), i = tracer.input("i", DType::i32, {5});
  CHECK(take(x, i).shape() == Shape{5, 2, 3});
}

TEST_CASE("ops: take picks rows of integers") {
  Case c = taken({70, 2, 2}, {3, 50});
  c.inputs[0].integer = true;
  c.inputs[0].low = -1000;
  c.inputs[0].high = 1000;
  std::vector<Doubles> x = random_inputs(c);
  for (const int threads : {0, 3}) CHECK(run(c, x, {.threads = threads}).values == c.oracle(x));
  x[1][149] = 70;
  CHECK_THROWS_WITH_AS(run(c, x, {}), "take: index 70 at index 149 is none of 70 rows",
                       InvalidArgument);
  x[1][149] = -1;
  CHECK_THROWS_AS(run(c, x, {}), InvalidArgument);
}

TEST_CASE("ops: take refuses indices that are no rows") {
  const Case c = taken({7, 5}, {2});
  CHECK_THROWS_WITH_AS(run(c, std::vector<Doubles>{Doubles(35), {0, 7}}, {}),
                       doctest::Contains("7 at index 1"), InvalidArgument);
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {2, 3}), none = tracer.input("n", DType::f32, {0});
  const Value i = tracer.input("i", DType::i32, {2});
  CHECK_THROWS_AS(take(x, x), InvalidArgument);
  CHECK_THROWS_AS(take(none, i), InvalidArgument);
}

}  // namespace ashlar::test
