// Convolution against the sum in its definition, in double, one element at a time.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

struct Convolution {
  Shape x, weight;
  Conv2dOptions options;
  bool bias = false;
};

std::size_t at(const Shape& shape, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
  return static_cast<std::size_t>(((a * shape[1] + b) * shape[2] + c) * shape[3] + d);
}

Doubles formula(const Convolution& c, std::span<const Doubles> v) {
  const auto extent = [&](int axis, int kernel) {
    return (c.x[axis] + 2 * c.options.padding - c.weight[kernel]) / c.options.stride + 1;
  };
  const Shape y{c.x[0], extent(1, 0), extent(2, 1), c.weight[3]};
  Doubles result(static_cast<std::size_t>(y.elements()));
  for (std::int64_t n = 0; n < y[0]; ++n)
    for (std::int64_t i = 0; i < y[1]; ++i)
      for (std::int64_t j = 0; j < y[2]; ++j)
        for (std::int64_t out = 0; out < y[3]; ++out) {
          double sum = c.bias ? v[2][static_cast<std::size_t>(out)] : 0;
          for (std::int64_t a = 0; a < c.weight[0]; ++a)
            for (std::int64_t b = 0; b < c.weight[1]; ++b)
              for (std::int64_t in = 0; in < c.x[3]; ++in) {
                const std::int64_t row = i * c.options.stride - c.options.padding + a;
                const std::int64_t column = j * c.options.stride - c.options.padding + b;
                if (row < 0 || row >= c.x[1] || column < 0 || column >= c.x[2]) continue;
                sum += v[0][at(c.x, n, row, column, in)] * v[1][at(c.weight, a, b, in, out)];
              }
          result[at(y, n, i, j, out)] = sum;
        }
  return result;
}

Case convolved(const Convolution& c) {
  Case made{.name = fmt::format("conv2d {} by {}, stride {}, padding {}{}", to_string(c.x),
                                to_string(c.weight), c.options.stride, c.options.padding,
                                c.bias ? ", bias" : ""),
            .inputs = {{.shape = c.x}, {.shape = c.weight}},
            .build =
                [=](Tracer&, Values v) {
                  return std::vector{conv2d(v[0], v[1], c.bias ? v[2] : Value(), c.options)};
                },
            .oracle = [=](std::span<const Doubles> v) { return Outputs{formula(c, v)}; }};
  if (c.bias) made.inputs.push_back({.shape = {c.weight[3]}});
  return made;
}

}  // namespace

TEST_CASE("ops: conv2d equals its formula and derivatives") {
  check(convolved({{2, 5, 4, 3}, {3, 3, 3, 2}, {1, 1}, true}));
  check(convolved({{1, 6, 7, 1}, {2, 3, 1, 5}, {}, false}));
  check(convolved({{2, 3, 3, 2}, {1, 1, 2, 3}, {}, true}));
  check(convolved({{1, 1, 1, 1}, {1, 1, 1, 1}, {}, false}));
}

TEST_CASE("ops: conv2d takes any stride and padding") {
  check(convolved({{2, 7, 8, 2}, {3, 3, 2, 3}, {2, 1}, true}));
  check(convolved({{1, 9, 5, 3}, {2, 4, 3, 2}, {3, 2}, false}));
  check(convolved({{1, 5, 5, 1}, {2, 2, 1, 2}, {4, 0}, false}));  // pixels that no window sees
  check(convolved({{1, 2, 3, 2}, {3, 2, 2, 2}, {1, 4}, true}));   // padding wider than the kernel
  check(convolved({{2, 3, 3, 2}, {5, 5, 2, 2}, {2, 2}, false}));  // kernel larger than the image
}

TEST_CASE("ops: conv2d over vectors of any length") {
  check(convolved({{2, 6, 9, 17}, {3, 3, 17, 33}, {1, 1}, true}));
  check(convolved({{3, 4, 13, 8}, {3, 2, 8, 48}, {2, 1}, false}));
  check(convolved({{70, 12, 12, 1}, {5, 5, 1, 8}, {1, 2}, true}));  // many samples and tasks
}

TEST_CASE("ops: conv2d of a whole image is a linear layer") {
  const Convolution c{{37, 3, 4, 5}, {3, 4, 5, 10}, {}, true};
  check(convolved(c));
  const Case both{.name = "linear",
                  .inputs = {{.shape = c.x}, {.shape = c.weight}, {.shape = {10}}},
                  .build = [](Tracer&, Values v) {
                    return std::vector{
                        reshape(conv2d(v[0], v[1], v[2]), {37, 10}),
                        linear(reshape(v[0], {37, 60}), reshape(v[1], {60, 10}), v[2])};
                  }};
  const Result r = run(both, random_inputs(both), {});
  for (std::size_t i = 0; i < r.values[0].size(); ++i)
    CHECK(r.values[0][i] == doctest::Approx(r.values[1][i]).epsilon(1e-12));
}

TEST_CASE("ops: conv2d of no samples is empty, and its gradient zero") {
  const Case none = convolved({{0, 4, 4, 2}, {3, 3, 2, 3}, {1, 1}, true});
  const Result r = run(none, random_inputs(none), {.backward = true, .threads = 2});
  CHECK(r.values[0].empty());
  CHECK(r.values[2] == Doubles(54, 0.0));
  CHECK(r.values[3] == Doubles(3, 0.0));
}

TEST_CASE("ops: conv2d refuses what does not fit") {
  Tracer t;
  const auto input = [&](const char* name, const Shape& shape, DType dtype = DType::f32) {
    return t.input(name, dtype, shape);
  };
  const Value x = input("x", {2, 5, 5, 3}), w = input("w", {3, 3, 3, 4});
  CHECK_THROWS_AS(conv2d(x, input("w2", {3, 3, 2, 4}), {}), InvalidArgument);
  CHECK_THROWS_AS(conv2d(x, input("w3", {3, 3, 4}), {}), InvalidArgument);
  CHECK_THROWS_AS(conv2d(x, input("w4", {6, 3, 3, 4}), {}), InvalidArgument);
  CHECK_THROWS_AS(conv2d(x, input("w5", {3, 3, 3, 4}, DType::f64), {}), InvalidArgument);
  CHECK_THROWS_AS(conv2d(x, w, input("b", {5})), InvalidArgument);
  CHECK_THROWS_AS(conv2d(x, w, input("s", Shape())), InvalidArgument);
  CHECK_THROWS_AS(conv2d(x, w, input("d", {4}, DType::bf16)), InvalidArgument);
  CHECK_THROWS_AS(conv2d(x, w, {}, {.stride = 0}), InvalidArgument);
  CHECK_THROWS_AS(conv2d(x, w, {}, {.padding = -1}), InvalidArgument);
  CHECK_THROWS_AS(conv2d(input("i", {2, 5, 5, 3}, DType::i32), w, {}), InvalidArgument);
}

}  // namespace ashlar::test
