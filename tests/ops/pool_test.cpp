// Pooling against its definition, in double, one window at a time.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

enum class Kind { max, average };

Value pool(Kind kind, Value x, std::int64_t kernel, std::int64_t stride) {
  return kind == Kind::max ? max_pool2d(x, kernel, stride) : average_pool2d(x, kernel, stride);
}

Doubles formula(Kind kind, const Shape& x, std::int64_t kernel, std::int64_t stride,
                const Doubles& v) {
  Doubles y;
  for (std::int64_t n = 0; n < x[0]; ++n)
    for (std::int64_t i = 0; i + kernel <= x[1]; i += stride)
      for (std::int64_t j = 0; j + kernel <= x[2]; j += stride)
        for (std::int64_t c = 0; c < x[3]; ++c) {
          double sum = 0, most = -1e300;
          for (std::int64_t a = i; a < i + kernel; ++a)
            for (std::int64_t b = j; b < j + kernel; ++b) {
              const auto at = static_cast<std::size_t>(((n * x[1] + a) * x[2] + b) * x[3] + c);
              sum += v[at];
              most = std::max(most, v[at]);
            }
          y.push_back(kind == Kind::max ? most : sum / static_cast<double>(kernel * kernel));
        }
  return y;
}

void check_both(const Shape& x, std::int64_t kernel, std::int64_t stride) {
  for (const Kind kind : {Kind::max, Kind::average}) {
    check(
        {.name = fmt::format("{} pool {} by {}, stride {}", kind == Kind::max ? "max" : "average",
                             to_string(x), kernel, stride),
         .inputs = {{.shape = x}},
         .build = [=](Tracer&, Values v) { return std::vector{pool(kind, v[0], kernel, stride)}; },
         .oracle =
             [=](std::span<const Doubles> v) {
               return Outputs{formula(kind, x, kernel, stride, v[0])};
             }});
  }
}

}  // namespace

TEST_CASE("ops: pooling equals its formula and derivatives") {
  check_both({2, 4, 6, 3}, 2, 2);
  check_both({1, 5, 5, 1}, 3, 1);  // windows overlap
  check_both({2, 7, 4, 5}, 2, 3);  // pixels between the windows, and behind the last
  check_both({1, 3, 3, 2}, 3, 3);  // one window
  check_both({3, 9, 11, 70}, 3, 2);
  check_both({30, 8, 8, 16}, 2, 2);  // many tasks
}

TEST_CASE("ops: a stride of 0 is the kernel's") {
  Tracer t;
  const Value x = t.input("x", DType::f32, {2, 9, 6, 4});
  CHECK(max_pool2d(x, 3).shape() == Shape{2, 3, 2, 4});
  CHECK(average_pool2d(x, 2).shape() == Shape{2, 4, 3, 4});
}

TEST_CASE("ops: of equal elements the first gets max pooling's gradient") {
  const Case c{.name = "max pool",
               .inputs = {{.shape = {1, 2, 4, 1}}},
               .build = [](Tracer&, Values v) { return std::vector{max_pool2d(v[0], 2)}; }};
  const Run how{.backward = true, .cotangents = {{5, 7}}, .tangents = {{1, 2, 3, 4, 5, 6, 7, 8}}};
  const Result r = run(c, std::vector<Doubles>{{2, 2, 0, 1, 2, 2, 1, 1}}, how);
  CHECK(r.values[0] == Doubles{2, 1});
  CHECK(r.values[1] == Doubles{5, 0, 0, 7, 0, 0, 0, 0});
  CHECK(r.values[2] == Doubles{1, 4});
}

TEST_CASE("ops: max pooling hides no NaN") {
  const Case c{.name = "max pool",
               .inputs = {{.shape = {1, 2, 4, 1}}},
               .build = [](Tracer&, Values v) { return std::vector{max_pool2d(v[0], 2)}; }};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Result r =
      run(c, std::vector<Doubles>{{1, nan, 3, 4, 5, 6, 7, nan}}, {.dtype = DType::f32});
  CHECK(std::isnan(r.values[0][0]));
  CHECK(std::isnan(r.values[0][1]));
}

TEST_CASE("ops: pooling refuses what does not fit") {
  Tracer t;
  const Value x = t.input("x", DType::f32, {2, 5, 5, 3}),
              i = t.input("i", DType::i32, {2, 5, 5, 3});
  for (const Kind kind : {Kind::max, Kind::average}) {
    CHECK_THROWS_AS(pool(kind, x, 6, 1), InvalidArgument);
    CHECK_THROWS_AS(pool(kind, x, 0, 1), InvalidArgument);
    CHECK_THROWS_AS(pool(kind, x, 2, -1), InvalidArgument);
    CHECK_THROWS_AS(pool(kind, i, 2, 2), InvalidArgument);
    CHECK_THROWS_AS(pool(kind, t.input("m", DType::f32, {5, 5}), 2, 2), InvalidArgument);
  }
  CHECK_THROWS_AS(max_pool2d(t.input("l", DType::f32, {1, 20, 20, 1}), 17), InvalidArgument);
}

}  // namespace ashlar::test
