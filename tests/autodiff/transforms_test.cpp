// Transformations of functions, composed.
#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/op.hpp"
#include "ashlar/ops.hpp"
#include "autodiff/support.hpp"

namespace ashlar::test {
namespace {

std::vector<Value> one(Value value) { return {value}; }

std::vector<Value> cube(Values x) { return one(multiply(x[0], multiply(x[0], x[0]))); }

/// A scalar of a vector with a full Hessian.
std::vector<Value> energy(Values x) {
  const Value p = softmax(reshape(multiply(x[0], x[1]), {1, 5}));
  return one(sum(multiply(tanh(p), exp(x[0]))));
}
const std::vector<Array> kPoint = {random_array({5}, 1), random_array({5}, 2)};

/// A map from 5 numbers to 3.
Function vector_map() {
  return [](Values x) {
    const Value w = reshape(slice(exp(x[0]), 0, 0, 3), {3, 1});
    return one(sum(tanh(multiply(w, reshape(x[0], {1, 5}))), 2U));
  };
}

Array basis(std::int64_t n, std::size_t i) {
  Array e{{n}, Doubles(static_cast<std::size_t>(n), 0.0)};
  e.numbers[i] = 1;
  return e;
}

std::size_t nodes_named(const Tracer& tracer, std::string_view name) {
  std::size_t count = 0;
  for (const Node& node : tracer.graph().nodes) count += node.op->name == name ? 1 : 0;
  return count;
}

}  // namespace

TEST_CASE("autodiff: grad of grad of grad") {
  const Function third = grad(grad(grad(cube)));
  CHECK(run(cube, {scalar(1.7)})[0][0] == doctest::Approx(1.7 * 1.7 * 1.7));
  CHECK(run(grad(cube), {scalar(1.7)})[0][0] == doctest::Approx(3 * 1.7 * 1.7));
  CHECK(run(grad(grad(cube)), {scalar(1.7)})[0][0] == doctest::Approx(6 * 1.7));
  CHECK(run(third, {scalar(1.7)})[0][0] == doctest::Approx(6));
  CHECK(run(grad(third), {scalar(1.7)})[0][0] == 0);
  const Function tanh_sum = [](Values x) { return one(sum(tanh(x[0]))); };
  const Function fourth = grad(grad(grad(grad(tanh_sum))));
  const double t = std::tanh(0.3), s = 1 - t * t;  // tanh'''' = 8 t s (2 s - t^2)
  CHECK(run(fourth, {scalar(0.3)})[0][0] == doctest::Approx(8 * t * s * (2 * s - t * t)));
}

TEST_CASE("autodiff: jvp of vjp, vjp of jvp, vjp of vjp and jvp of jvp see the same Hessian") {
  const std::vector<Array> along = {random_array({5}, 3), random_array({5}, 4)};
  const std::vector<Doubles> expected = difference(grad(energy), kPoint, along);
  const auto with_direction = [&](auto transform) {
    std::vector<Array> all = kPoint;
    all.insert(all.end(), along.begin(), along.end());
    return run([&](Values x) { return transform(x.first(2), x.subspan(2)); }, all);
  };
  const auto forward_over_reverse =
      with_direction([](Values x, Values t) { return jvp(grad(energy), x, t).tangents; });
  const auto reverse_over_forward = with_direction([](Values x, Values t) {
    const std::vector<Value> tangents(t.begin(), t.end());
    return grad([tangents](Values y) { return jvp(energy, y, tangents).tangents; })(x);
  });
  const auto reverse_over_reverse = with_direction([](Values x, Values t) {
    return vjp(grad(energy), x).linear(t);  // the Hessian is symmetric
  });
  for (std::size_t i = 0; i < 2; ++i) {
    check_close(forward_over_reverse[i], expected[i], 1e-7);
    check_close(reverse_over_forward[i], expected[i], 1e-7);
    check_close(reverse_over_reverse[i], expected[i], 1e-7);
  }
  const auto twice = with_direction([](Values x, Values t) {
    const std::vector<Value> tangents(t.begin(), t.end());
    return jvp([tangents](Values y) { return jvp(energy, y, tangents).tangents; }, x, t).tangents;
  });
  double quadratic = 0;
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t j = 0; j < 5; ++j) quadratic += expected[i][j] * along[i].numbers[j];
  check_close(twice[0], {quadratic}, 1e-7);
}

TEST_CASE("autodiff: Jacobians by rows and by columns; a linear function is applied many times") {
  std::vector<Array> inputs = {kPoint[0]};
  for (std::size_t i = 0; i < 3; ++i) inputs.push_back(basis(3, i));
  for (std::size_t j = 0; j < 5; ++j) inputs.push_back(basis(5, j));
  const auto all = run(
      [](Values x) {
        const Linearized reverse = vjp(vector_map(), x.first(1));
        const Linearized forward = linearize(vector_map(), x.first(1));
        std::vector<Value> results;
        for (std::size_t i = 0; i < 3; ++i)
          results.push_back(reverse.linear(x.subspan(1 + i, 1))[0]);
        for (std::size_t j = 0; j < 5; ++j)
          results.push_back(forward.linear(x.subspan(4 + j, 1))[0]);
        return results;
      },
      inputs);
  for (std::size_t j = 0; j < 5; ++j) {
    const Doubles column = difference(vector_map(), {kPoint[0]}, {basis(5, j)})[0];
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(all[i][j] == doctest::Approx(column[i]).epsilon(1e-7));
      CHECK(all[3 + j][i] == doctest::Approx(column[i]).epsilon(1e-7));
    }
  }
}

TEST_CASE("autodiff: the gradient is of the first output, all come back") {
  const Function f = [](Values x) {
    return std::vector{sum(multiply(x[0], x[1])), exp(x[0]), x[1]};
  };
  const auto all = run(
      [&](Values x) {
        const auto [outputs, gradients] = value_and_grad(f, x);
        std::vector<Value> results = outputs;
        results.insert(results.end(), gradients.begin(), gradients.end());
        return results;
      },
      kPoint);
  REQUIRE(all.size() == 5);
  CHECK(all[1][3] == std::exp(kPoint[0].numbers[3]));
  CHECK(all[2] == kPoint[1].numbers);
  CHECK(all[3] == kPoint[1].numbers);
  CHECK(all[4] == kPoint[0].numbers);
}

TEST_CASE("autodiff: identity, views of an input, one value as two outputs, unused inputs") {
  const Array x = random_array({2, 3}, 5), unused = random_array({4}, 6);
  const Array g = random_array({2, 3}, 7), h = random_array({3, 2}, 8);
  const Function f = [](Values v) { return std::vector{v[0], transpose(v[0], 0, 1), v[0]}; };
  const auto results = run(
      [&](Values v) {
        const std::vector<Value> cotangents = {v[2], v[3], v[2]};
        const std::vector<Value> inputs = {v[0], v[1]}, tangents = {v[2], Value()};
        std::vector<Value> all = vjp(f, inputs).linear(cotangents);
        for (const Value& t : linearize(f, inputs).linear(tangents)) all.push_back(t);
        return all;
      },
      {x, unused, g, h});
  Doubles expected(6), transposed(6);
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      expected[i * 3 + j] = 2 * g.numbers[i * 3 + j] + h.numbers[j * 2 + i];
      transposed[j * 2 + i] = g.numbers[i * 3 + j];
    }
  check_close(results[0], expected, 1e-15);
  CHECK(results[1] == Doubles(4, 0.0));
  CHECK(results[2] == g.numbers);
  CHECK(results[3] == transposed);
  CHECK(results[4] == g.numbers);
}

TEST_CASE("autodiff: outputs that depend on no input have zero derivatives") {
  const Function f = [](Values x) {
    return std::vector{constant(x[0].tracer(), 3, DType::f64, {}), sum(x[0])};
  };
  const auto results = run(
      [&](Values x) {
        std::vector<Value> all = value_and_grad(f, x).gradients;
        for (const Value& t : jvp(f, x, x).tangents) all.push_back(t);
        return all;
      },
      {kPoint[0]});
  CHECK(results[0] == Doubles(5, 0.0));
  CHECK(results[1] == Doubles{0});
  CHECK(results[2][0] != 0);
}

TEST_CASE("autodiff: tied weights add up; arguments and closures are told apart") {
  const Function product = [](Values x) { return one(multiply(x[0], x[1])); };
  const auto results = run(
      [&](Values v) {
        const std::vector<Value> twice = {v[0], v[0]};
        std::vector<Value> all = grad(product)(twice);  // x each, not 2 x
        const Value x = v[0];
        const Function tied = [&](Values y) { return product(std::vector{y[0], y[0]}); };
        all.push_back(grad(tied)(v)[0]);
        const Function closed = [x](Values y) { return one(multiply(x, y[0])); };
        all.push_back(grad(closed)(v)[0]);
        // d/dx [x d/dy (x + y)] at y = 1: 1, not 2.
        const Function outer = [](Values u) {
          const Value outside = u[0];
          const Value at = constant(outside.tracer(), 1, DType::f64, {});
          const Function inner = [outside](Values y) { return one(add(outside, y[0])); };
          return one(multiply(outside, grad(inner)({&at, 1})[0]));
        };
        all.push_back(grad(outer)(v)[0]);
        return all;
      },
      {scalar(3)});
  CHECK(results[0][0] == 3);
  CHECK(results[1][0] == 3);
  CHECK(results[2][0] == 6);
  CHECK(results[3][0] == 3);
  CHECK(results[4][0] == 1);
}

TEST_CASE("autodiff: nothing flows through stop_gradient, in either mode or order") {
  const Function f = [](Values x) {
    return one(sum(multiply(stop_gradient(exp(x[0])), multiply(x[0], x[0]))));
  };
  const auto results = run(
      [&](Values x) {
        std::vector<Value> all = f(x);
        all.push_back(grad(f)(x)[0]);
        all.push_back(jvp(f, x, x).tangents[0]);
        all.push_back(jvp(grad(f), x, x).tangents[0]);
        return all;
      },
      {scalar(0.7)});
  const double e = std::exp(0.7);
  CHECK(results[0][0] == doctest::Approx(e * 0.49));
  CHECK(results[1][0] == doctest::Approx(2 * 0.7 * e));
  CHECK(results[2][0] == doctest::Approx(2 * 0.49 * e));
  CHECK(results[3][0] == doctest::Approx(2 * 0.7 * e));
}

TEST_CASE("autodiff: transformations of a transformer's loss") {
  const Function loss = [](Values x) {
    const Value qkv = linear(layer_norm(x[0], x[1], x[2]), x[3], {});
    const Value h = add(x[0], linear_gelu(causal_attention(qkv, 2), x[4], x[2]));
    const Value p = softmax(matmul(h, x[4], {.transpose_b = true}));
    return one(mean(multiply(p, h)));
  };
  const std::vector<Array> at = {random_array({2, 3, 4}, 1), random_array({4}, 2),
                                 random_array({4}, 3), random_array({4, 12}, 4),
                                 random_array({4, 4}, 5)};
  std::vector<Array> all = at, along;
  for (const Array& a : at) along.push_back(random_array(a.shape, 9));
  all.insert(all.end(), along.begin(), along.end());
  const auto expected = difference(grad(loss), at, along);
  const auto actual =
      run([&](Values x) { return jvp(grad(loss), x.first(5), x.subspan(5)).tangents; }, all);
  for (std::size_t i = 0; i < 5; ++i) check_close(actual[i], expected[i], 1e-8);
  const auto third = run(
      [&](Values x) {
        const std::vector<Value> t(x.begin() + 5, x.end());
        const Function hessian = [&](Values y) { return jvp(grad(loss), y, t).tangents; };
        return jvp(hessian, x.first(5), t).tangents;
      },
      all);
  std::vector<Array> moved = all;
  const double step = 1e-4;
  std::vector<Doubles> quotient;
  for (const double sign : {1.0, -1.0}) {
    for (std::size_t k = 0; k < 5; ++k)
      for (std::size_t i = 0; i < at[k].numbers.size(); ++i)
        moved[k].numbers[i] = at[k].numbers[i] + sign * step * along[k].numbers[i];
    const auto values =
        run([&](Values x) { return jvp(grad(loss), x.first(5), x.subspan(5)).tangents; }, moved);
    quotient.resize(5);
    for (std::size_t k = 0; k < 5; ++k) {
      quotient[k].resize(values[k].size());
      for (std::size_t i = 0; i < values[k].size(); ++i)
        quotient[k][i] += sign * values[k][i] / (2 * step);
    }
  }
  for (std::size_t i = 0; i < 5; ++i) check_close(third[i], quotient[i], 1e-6);
}

TEST_CASE("autodiff: a forward derivative that is not asked for costs nothing") {
  Tracer tracer;
  const Value x = tracer.input("x", DType::f64, {3}), y = tracer.input("y", DType::f64, {3});
  const Value unrelated = tanh(exp(x));
  const Value output = multiply(x, y);
  const std::vector<Value> outputs = {output}, wrt = {x}, tangents = {y};
  CHECK(jvp(tracer, outputs, wrt, tangents)[0]);
  CHECK(nodes_named(tracer, "tanh_backward") == 0);
  const std::vector<Value> other = {unrelated}, by_y = {y};
  CHECK_FALSE(jvp(tracer, other, by_y, tangents)[0]);
}

TEST_CASE("autodiff: what cannot be differentiated is refused with op, place and reason") {
  static const OpDef kRound{.name = "round",
                            .shape = [](std::span<const TensorType> inputs,
                                        const Attributes&) { return std::vector{inputs[0]}; },
                            .not_differentiable = "its derivative is zero almost everywhere"};
  Tracer tracer;
  const Value x = tracer.input("x", DType::f64, {}), i = tracer.input("i", DType::i32, {});
  const Function round = [](Values v) { return one(v[0].tracer().apply1(kRound, {v[0]})); };
  const std::vector<Value> inputs = {x}, integers = {i};
  CHECK_THROWS_WITH_AS(value_and_grad(round, inputs),
                       doctest::Contains("'round' is on the path of a derivative"),
                       InvalidArgument);
  CHECK_FALSE(tracer.backward());
  CHECK_THROWS_WITH_AS(jvp(round, inputs, inputs), doctest::Contains("zero almost everywhere"),
                       InvalidArgument);
  CHECK_NOTHROW(value_and_grad([&](Values v) { return round(one(stop_gradient(v[0]))); }, inputs));
  const Function behind = [&](Values v) { return one(stop_gradient(round(v)[0])); };
  CHECK_NOTHROW(value_and_grad(behind, inputs));
  CHECK_NOTHROW(jvp(behind, inputs, inputs));
  const Value vector = tracer.input("v", DType::f64, {3});
  CHECK_THROWS_WITH_AS(value_and_grad([](Values v) { return one(v[0]); }, one(vector)),
                       doctest::Contains("one floating-point number"), InvalidArgument);
  CHECK_THROWS_WITH_AS(vjp(cube, {}), doctest::Contains("without inputs"), InvalidArgument);
  CHECK_THROWS_WITH_AS(jvp(cube, inputs, one(vector)),
                       doctest::Contains("tangent 0 is f64[3], its value is f64[]"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(vjp(cube, inputs).linear({}), doctest::Contains("0 cotangents are given"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(jvp([](Values v) { return one(v[0]); }, integers, integers),
                       doctest::Contains("it has no tangent"), InvalidArgument);
}

TEST_CASE("autodiff: integers among inputs and outputs have no derivative") {
  Tracer tracer;
  const Value table = tracer.input("table", DType::f64, {5, 2});
  const Value tokens = tracer.input("tokens", DType::i32, {3});
  const Function f = [](Values v) { return std::vector{sum(embedding(v[1], v[0], {})), v[1]}; };
  const std::vector<Value> inputs = {table, tokens};
  const ValueAndGradients result = value_and_grad(f, inputs);
  CHECK(result.gradients[0].shape() == Shape{5, 2});
  CHECK_FALSE(result.gradients[1]);
  const std::vector<Value> tangents = {table, Value()};
  const ValueAndTangents forward = jvp(f, inputs, tangents);
  CHECK(forward.tangents[0]);
  CHECK_FALSE(forward.tangents[1]);
}

}  // namespace ashlar::test
