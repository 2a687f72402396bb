// Views, copies and sums: forward and vjp, and which of them copy.
#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

/// A view of x (2, 3, 4, 5), times weights of its shape so that the order of elements shows.
Case view(std::string name, std::function<Value(Value)> op,
          std::function<Doubles(const Doubles&)> formula) {
  return {.name = std::move(name),
          .inputs = {{.shape = {2, 3, 4, 5}}},
          .build = [op](Tracer&, Values x) { return std::vector{op(x[0])}; },
          .oracle = [formula](std::span<const Doubles> x) { return Outputs{formula(x[0])}; }};
}

/// Element (i, j, k, l) of (2, 3, 4, 5).
std::size_t at(int i, int j, int k, int l) {
  return static_cast<std::size_t>(((i * 3 + j) * 4 + k) * 5 + l);
}

std::size_t copies(const Tracer& tracer) {
  std::size_t count = 0;
  for (const Node& node : tracer.graph().nodes) count += node.op->name == "contiguous" ? 1 : 0;
  return count;
}

}  // namespace

TEST_CASE("ops: views move no element out of place") {
  check(view(
      "reshape",
      [](Value x) {
        return reshape(x, {6, 20});
      },
      [](const Doubles& x) { return x; }));
  check(view(
      "transpose", [](Value x) { return transpose(x, 1, -1); },
      [](const Doubles& x) {
        Doubles y;
        for (int i = 0; i < 2; ++i)
          for (int l = 0; l < 5; ++l)
            for (int k = 0; k < 4; ++k)
              for (int j = 0; j < 3; ++j) y.push_back(x[at(i, j, k, l)]);
        return y;
      }));
  check(view(
      "reshape of transpose",
      [](Value x) {
        return reshape(transpose(x, 0, 1), {3, 40});
      },
      [](const Doubles& x) {
        Doubles y;
        for (int j = 0; j < 3; ++j)
          for (int i = 0; i < 2; ++i)
            for (int k = 0; k < 4; ++k)
              for (int l = 0; l < 5; ++l) y.push_back(x[at(i, j, k, l)]);
        return y;
      }));
  check(view(
      "slice of transpose", [](Value x) { return slice(transpose(x, 2, 3), 2, 1, 4); },
      [](const Doubles& x) {
        Doubles y;
        for (int i = 0; i < 2; ++i)
          for (int j = 0; j < 3; ++j)
            for (int l = 1; l < 4; ++l)
              for (int k = 0; k < 4; ++k) y.push_back(x[at(i, j, k, l)]);
        return y;
      }));
  check(view(
      "two slices of one value",
      [](Value x) { return multiply(slice(x, -1, 0, 3), slice(x, -1, 2, 5)); },
      [](const Doubles& x) {
        Doubles y;
        for (int i = 0; i < 2; ++i)
          for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 4; ++k)
              for (int l = 0; l < 3; ++l) y.push_back(x[at(i, j, k, l)] * x[at(i, j, k, l + 2)]);
        return y;
      }));
  check(view(
      "cast through f64", [](Value x) { return cast(cast(x, DType::f64), x.dtype()); },
      [](const Doubles& x) { return x; }));
  check(view(
      "cast through f32",
      [](Value x) {
        return x.dtype() == DType::f64 ? scale(x, 1) : cast(cast(x, DType::f32), x.dtype());
      },
      [](const Doubles& x) { return x; }));
  check(view(
      "constant",
      [](Value x) {
        return add(x, constant(x.tracer(), 1.5, x.dtype(), {4, 1}));
      },
      [](const Doubles& x) {
        Doubles y = x;
        for (double& v : y) v += 1.5;
        return y;
      }));
}

TEST_CASE("ops: a view copies only where strides cannot say it") {
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {4, 6, 8});
  CHECK(reshape(x, {24, 8}).contiguous());
  const Value heads = transpose(reshape(slice(x, 2, 2, 6), {4, 6, 2, 2}), 1, 2);
  CHECK(heads.shape() == Shape{4, 2, 6, 2});
  CHECK(copies(tracer) == 0);
  CHECK(tracer.graph()[heads.id()].strides == Shape{48, 2, 8, 1});
  reshape(heads, {8, 6, 2});  // (4, 2) lie 48 and 2 apart: not one axis
  CHECK(copies(tracer) == 1);
  const Value row = slice(x, 0, 1, 2);
  CHECK(row.contiguous());
  CHECK_THROWS_AS(reshape(x, {5, 5}), InvalidArgument);
  CHECK_THROWS_AS(slice(x, 0, 2, 5), InvalidArgument);
  CHECK_THROWS_AS(transpose(x, 0, 3), InvalidArgument);
  CHECK_THROWS_AS(broadcast_to(x, {4, 6, 9}), InvalidArgument);
}

TEST_CASE("ops: sums over any axes of any layout") {
  const Shape shape{2, 3, 4, 5};
  for (std::uint32_t axes = 1; axes < 16; ++axes) {
    check(view(
        "sum of axes " + std::to_string(axes), [axes](Value x) { return sum(x, axes); },
        [axes, shape](const Doubles& x) {
          Doubles y;
          std::vector<std::pair<int, int>> seen;
          std::vector<std::vector<int>> keys;
          for (std::size_t e = 0; e < x.size(); ++e) {
            std::vector<int> key;
            auto rest = static_cast<std::int64_t>(e);
            for (int axis = 3; axis >= 0; --axis) {
              const auto position = static_cast<int>(rest % shape[axis]);
              rest /= shape[axis];
              if (((axes >> axis) & 1U) == 0) key.push_back(position);
            }
            const auto found = std::find(keys.begin(), keys.end(), key);
            const auto index = static_cast<std::size_t>(found - keys.begin());
            if (found == keys.end()) {
              keys.push_back(key);
              y.push_back(0);
            }
            y[index] += x[e];
          }
          return y;
        }));
  }
  check(view(
      "sum of a transpose", [](Value x) { return sum(transpose(x, 0, 3), 0b0011U); },
      [](const Doubles& x) {
        Doubles y(8, 0.0);
        for (int i = 0; i < 2; ++i)
          for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 4; ++k)
              for (int l = 0; l < 5; ++l)
                y[static_cast<std::size_t>(k * 2 + i)] += x[at(i, j, k, l)];
        return y;
      }));
  check(view(
      "mean", [](Value x) { return mean(x); },
      [](const Doubles& x) {
        double total = 0;
        for (const double v : x) total += v;
        return Doubles{total / static_cast<double>(x.size())};
      }));
}

TEST_CASE("ops: long sums keep their digits") {
  const Case columns{.name = "columns",
                     .inputs = {{.shape = {20011, 3}, .low = 0.5, .high = 1.5}},
                     .build = [](Tracer&, Values x) { return std::vector{sum(x[0], 1U)}; }};
  const Case run_case{.name = "run",
                      .inputs = {{.shape = {100003}, .low = 0.5, .high = 1.5}},
                      .build = [](Tracer&, Values x) { return std::vector{sum(x[0])}; }};
  for (const Case& c : {columns, run_case}) {
    std::vector<Doubles> x = random_inputs(c);
    for (double& v : x[0]) v = rounded(v, DType::f32);
    const Doubles exact = run(c, x, {}).values[0];
    const Doubles actual = run(c, x, {.dtype = DType::f32}).values[0];
    for (std::size_t i = 0; i < exact.size(); ++i)
      CHECK(std::abs(actual[i] - exact[i]) <= 4e-7 * exact[i]);
  }
}

}  // namespace ashlar::test
