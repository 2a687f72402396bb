// The code of docs/autodiff.md and docs/adding-an-op.md; tests/docs.cmake compares.
#include <doctest/doctest.h>

#include "ashlar/ops.hpp"
#include "autodiff/support.hpp"
#include "ops/check.hpp"

namespace ashlar::test {

// An op in one place.
namespace {

const OpDef kSquare{.name = "square",
                    .shape = [](std::span<const TensorType> inputs,
                                const Attributes&) { return std::vector{inputs[0]}; },
                    .vjp =
                        [](const VjpArguments& a) {
                          const Value g = multiply(a.cotangents[0], scale(a.inputs[0], 2));
                          return std::vector{cast(g, a.gradient_dtypes[0])};
                        },
                    .jvp = symmetric_jvp,
                    .may_reuse = {0},
                    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 1); },
                    .run =
                        [](const KernelArguments& a) {
                          const auto* x = a.inputs[0].as<double>();
                          auto* y = a.outputs[0].as<double>();
                          for (std::int64_t i = 0; i < a.inputs[0].elements(); ++i)
                            y[i] = x[i] * x[i];
                        }};

Value square(Value x, Where where = Where::current()) {
  return x.tracer().apply1(kSquare, {x}, {}, where);
}

}  // namespace

TEST_CASE("docs: an op that is added in one place is differentiated like any other") {
  const Function f = [](Values x) { return std::vector{sum(square(x[0]))}; };
  const Array at = random_array({4}, 1), along = random_array({4}, 2);
  const auto second = [&](Values x) { return jvp(grad(f), x.first(1), x.subspan(1)).tangents; };
  Doubles gradient, curvature;
  for (const double x : at.numbers) gradient.push_back(2 * x);
  for (const double t : along.numbers) curvature.push_back(2 * t);
  check_close(run(grad(f), {at})[0], gradient, 1e-14);
  check_close(run(second, {at, along})[0], curvature, 1e-14);
}

TEST_CASE("docs: the page on autodiff") {
  const Function loss = [](std::span<const Value> x) {
    const Value h = tanh(matmul(x[0], x[1]));
    return std::vector{mean(multiply(h, h)), h};
  };
  // Hessian times vector
  const Function hvp = [&](std::span<const Value> x) {
    return jvp(grad(loss), x.first(2), x.subspan(2)).tangents;
  };
  const Array x = random_array({3, 4}, 1), w = random_array({4, 2}, 2);
  const Array dx = random_array({3, 4}, 3), dw = random_array({4, 2}, 4);
  const auto expected = difference(grad(loss), {x, w}, {dx, dw});
  const auto actual = run(hvp, {x, w, dx, dw});
  check_close(actual[0], expected[0], 1e-8);
  check_close(actual[1], expected[1], 1e-8);

  const std::vector<TensorType> types = {{DType::f64, {3, 4}}, {DType::f64, {4, 2}}};
  const Tensor xs = to_tensor(x), ws = to_tensor(w), one = to_tensor({Shape(), {1}});
  // Run
  const ForwardBackward program(loss, types);
  auto [outputs, pullback] = program.run({xs, ws});
  const std::vector<Tensor> gradients = std::move(pullback)({one, Tensor()});

  const auto again = program.run<repeatable>({xs, ws});
  const auto two = again.pullback.batched({{one, Tensor()}, {Tensor(), outputs[1]}});

  const std::string kept = to_string(saved_residuals(loss, types));
  // End
  CHECK(to_doubles(two[0][1]) == to_doubles(gradients[1]));
  CHECK(kept.find("tanh") != std::string::npos);
}

}  // namespace ashlar::test
