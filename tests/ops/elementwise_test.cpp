// Element-wise ops, broadcasting, views and sums.
#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

Case unary(std::string name, double low, double high, Value (*op)(Value, Where),
           double (*formula)(double)) {
  return {.name = std::move(name),
          .inputs = {{.shape = {3, 15}, .low = low, .high = high}},
          .build = [op](Tracer&, Values x) { return std::vector{op(x[0], Where::current())}; },
          .oracle =
              [formula](std::span<const Doubles> x) {
                Doubles y;
                for (const double v : x[0]) y.push_back(formula(v));
                return Outputs{y};
              }};
}

double gelu_formula(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

Case binary(std::string name, Shape a, Shape b, Value (*op)(Value, Value, Where),
            double (*formula)(double, double)) {
  Case c{
      .name = std::move(name),
      .inputs = {{.shape = a, .low = 0.5, .high = 2}, {.shape = b, .low = 0.5, .high = 2}},
      .build = [op](Tracer&, Values x) { return std::vector{op(x[0], x[1], Where::current())}; }};
  c.oracle = [a, b, formula](std::span<const Doubles> x) {
    // (2, 3, 5) is the common shape of all cases here.
    const auto at = [](const Shape& shape, int i, int j, int k) {
      std::int64_t index = 0;
      const int position[3] = {i, j, k};
      for (int axis = 0; axis < shape.rank(); ++axis) {
        const int p = position[3 - shape.rank() + axis];
        index = index * shape[axis] + (shape[axis] == 1 ? 0 : p);
      }
      return static_cast<std::size_t>(index);
    };
    Doubles y;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 3; ++j)
        for (int k = 0; k < 5; ++k)
          y.push_back(formula(x[0][at(a, i, j, k)], x[1][at(b, i, j, k)]));
    return Outputs{y};
  };
  return c;
}

}  // namespace

TEST_CASE("ops: unary functions equal their formulas and derivatives") {
  check(unary("exp", -3, 3, exp, [](double x) { return std::exp(x); }));
  check(unary("log", 0.2, 4, log, [](double x) { return std::log(x); }));
  check(unary("tanh", -2, 2, tanh, [](double x) { return std::tanh(x); }));
  check(unary("gelu", -4, 4, gelu, gelu_formula));
  check({.name = "scale",
         .inputs = {{.shape = {17}}},
         .build = [](Tracer&, Values x) { return std::vector{scale(x[0], -2.5)}; },
         .oracle =
             [](std::span<const Doubles> x) {
               Doubles y;
               for (const double v : x[0]) y.push_back(-2.5 * v);
               return Outputs{y};
             }});
}

TEST_CASE("ops: binary functions broadcast either side") {
  const std::vector<std::pair<Shape, Shape>> shapes{{{2, 3, 5}, {2, 3, 5}}, {{2, 3, 5}, {5}},
                                                    {{3, 1}, {2, 3, 5}},    {{2, 1, 5}, {3, 1}},
                                                    {{2, 3, 5}, Shape()},   {{1, 1, 1}, {2, 3, 5}}};
  for (const auto& [a, b] : shapes) {
    const std::string name = to_string(a) + to_string(b);
    check(binary("add" + name, a, b, add, [](double x, double y) { return x + y; }));
    check(binary("subtract" + name, a, b, subtract, [](double x, double y) { return x - y; }));
    check(binary("multiply" + name, a, b, multiply, [](double x, double y) { return x * y; }));
    check(binary("divide" + name, a, b, divide, [](double x, double y) { return x / y; }));
  }
}

}  // namespace ashlar::test
