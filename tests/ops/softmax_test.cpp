// Softmax and cross-entropy on given logits.
#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

Doubles softmax_formula(const Doubles& x, std::size_t n) {
  Doubles y(x.size());
  for (std::size_t row = 0; row < x.size(); row += n) {
    double total = 0;
    for (std::size_t i = 0; i < n; ++i) total += std::exp(x[row + i]);
    for (std::size_t i = 0; i < n; ++i) y[row + i] = std::exp(x[row + i]) / total;
  }
  return y;
}

Case entropy(const Shape& logits, double lowest_target) {
  const Shape rows(logits.extents().first(static_cast<std::size_t>(logits.rank() - 1)));
  return {.name = "cross_entropy " + to_string(logits),
          .inputs = {{.shape = logits, .low = -3, .high = 3},
                     {.shape = rows,
                      .low = lowest_target,
                      .high = static_cast<double>(logits[-1]),
                      .integer = true}},
          .build = [](Tracer&, Values x) { return std::vector{cross_entropy(x[0], x[1])}; },
          .oracle =
              [n = static_cast<std::size_t>(logits[-1])](std::span<const Doubles> x) {
                const Doubles p = softmax_formula(x[0], n);
                double total = 0, count = 0;
                for (std::size_t r = 0; r < x[1].size(); ++r) {
                  if (x[1][r] < 0) continue;
                  total -= std::log(p[r * n + static_cast<std::size_t>(x[1][r])]);
                  count += 1;
                }
                return Outputs{{total / count}};
              }};
}

}  // namespace

TEST_CASE("ops: softmax equals its formula and derivative") {
  for (const Shape& shape : {Shape{4, 9}, Shape{2, 3, 33}, Shape{1, 500}}) {
    check(
        {.name = "softmax " + to_string(shape),
         .inputs = {{.shape = shape, .low = -4, .high = 4}},
         .build = [](Tracer&, Values x) { return std::vector{softmax(x[0])}; },
         .oracle = [n = static_cast<std::size_t>(shape[-1])](
                       std::span<const Doubles> x) { return Outputs{softmax_formula(x[0], n)}; }});
  }
}

TEST_CASE("ops: cross-entropy is the mean over the targets that count") {
  check(entropy({5, 7}, 0));
  check(entropy({3, 8, 40}, -40));
}

TEST_CASE("ops: cross-entropy of large logits is finite; of no target it is 0") {
  const Case c = entropy({2, 5}, 0);
  const std::vector<Doubles> large{{3e4, -3e4, 0, 1e4, 2e4, -3e38, 3e38, 0, 0, 0}, {0, 1}};
  const Result loss = run(c, large, {.dtype = DType::f32, .backward = true});
  CHECK(loss.values[0][0] == doctest::Approx(0));
  for (const double g : loss.values[1]) CHECK(std::abs(g) <= 1);
  const std::vector<Doubles> none{large[0], {-1, -7}};
  for (const Doubles& values : run(c, none, {.dtype = DType::f32, .backward = true}).values)
    for (const double v : values) CHECK(v == 0);
  CHECK_THROWS_AS(run(c, std::vector<Doubles>{large[0], {0, 5}}, {}), InvalidArgument);
}

}  // namespace ashlar::test
