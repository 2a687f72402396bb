// The pass that joins the products of linear's backward with what is beside them: where it does,
// where not, and that it changes no bit of the CPU's results.
#include "ops/product/fuse_linear_backward.hpp"

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <string>
#include <vector>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/ops.hpp"
#include "graph/evaluate.hpp"
#include "ops/harness.hpp"
#include "ops/product/linear_rows.hpp"
#include "ops/reduce.hpp"
#include "support/elements.hpp"

namespace ashlar::test {
namespace {

/// A backend with kernels for both rows, or for one.
Backend joining(bool sums = true, bool gelus = true) {
  static const DeviceKernel kernel;
  constexpr auto kSums = [](std::string_view op) {
    return op == kLinearWeightGradient.name ? &kernel : nullptr;
  };
  constexpr auto kGelus = [](std::string_view op) {
    return op == kLinearGeluBackward.name ? &kernel : nullptr;
  };
  constexpr auto kBoth = [](std::string_view op) -> const DeviceKernel* {
    return op == kLinearWeightGradient.name || op == kLinearGeluBackward.name ? &kernel : nullptr;
  };
  Backend backend;
  if (sums && gelus) {
    backend.find_kernel = kBoth;
  } else if (sums) {
    backend.find_kernel = kSums;
  } else if (gelus) {
    backend.find_kernel = kGelus;
  }
  return backend;
}

int count(const Graph& graph, const OpDef& op) {
  int nodes = 0;
  for (const Node& node : graph.nodes) nodes += node.op == &op ? 1 : 0;
  return nodes;
}

struct Variant {
  DType dtype = DType::f32;
  bool keeps_gradient = false;  // d gelu(h) is an output too
  bool two_units = false;
};

/// The gradients of a perceptron of two layers of gelu and one without.
Graph gradients_of(const Variant& v) {
  Tracer tracer;
  const Value x = tracer.input("x", v.dtype, {3, 7, 6});
  const auto parameter = [&](const char* name, const Shape& shape) {
    return tracer.input(name, v.dtype, shape);
  };
  std::vector<Value> wrt = {parameter("w0", {6, 40}),  parameter("b0", {40}),
                            parameter("w1", {40, 24}), parameter("b1", {24}),
                            parameter("w2", {24, 5}),  parameter("b2", {5})};
  const auto layer = [&](const char* unit_name, auto op, Value from, std::size_t weight) {
    const auto unit = tracer.unit(unit_name);
    return op(from, wrt[weight], wrt[weight + 1], Where::current());
  };
  const Value inner = layer("inner", linear_gelu, x, 0);
  const Value up = layer(v.two_units ? "up" : "inner", linear_gelu, inner, 2);
  const Value y = layer(v.two_units ? "down" : "inner", linear, up, 4);
  if (v.keeps_gradient) wrt.push_back(inner);
  const std::array outputs = {y}, cotangents = {tracer.input("dy", v.dtype, {3, 7, 5})};
  const std::vector<DType> wide(wrt.size(), DType::f32);
  int i = 0;
  for (const Value& gradient : vjp(tracer, outputs, cotangents, wrt, wide))
    tracer.output("g" + std::to_string(i++), gradient);
  return tracer.graph();
}

/// The bytes of all outputs, one behind the other.
std::vector<std::byte> run(const Graph& graph) {
  std::vector<Buffer> memory;
  std::map<std::string, TensorView> inputs;
  std::uint64_t seed = 1;
  for (const ValueId id : graph.inputs) {
    const TensorType& type = graph[id].type;
    memory.emplace_back(host_memory(), type.bytes(), Category::input);
    const TensorView view = memory.back().view(type.dtype, type.shape);
    const Doubles values = random_values(type.elements(), -1, 1, ++seed);
    for (std::size_t k = 0; k < values.size(); ++k)
      set_element(view, static_cast<std::int64_t>(k), values[k]);
    inputs[graph[id].name] = view;
  }
  std::vector<std::byte> bytes;
  for (const auto& [name, result] : evaluate(graph, inputs, {})) {
    const std::byte* data = result.second.data;
    bytes.insert(bytes.end(), data, data + result.second.bytes());
  }
  return bytes;
}

}  // namespace

TEST_CASE("fuse_linear_backward: joined nodes compute the same bits") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Graph apart = gradients_of({.dtype = dtype});
    REQUIRE(count(apart, kMatmul) == 5);
    REQUIRE(count(apart, kGeluColumnsBackward) == 2);
    REQUIRE(count(apart, kSum) == 1);
    const Graph joined = fuse_linear_backward(apart, joining());
    validate(joined);
    CHECK(count(joined, kLinearGeluBackward) == 2);
    CHECK(count(joined, kLinearWeightGradient) == 1);
    CHECK(count(joined, kMatmul) == 2);
    CHECK(count(joined, kGeluColumnsBackward) + count(joined, kSum) == 0);
    CHECK(run(joined) == run(apart));
  }
}

TEST_CASE("fuse_linear_backward: only what a backend has kernels for") {
  const Graph apart = gradients_of({});
  for (const bool sums : {true, false}) {
    for (const bool gelus : {true, false}) {
      const Graph joined = fuse_linear_backward(apart, joining(sums, gelus));
      validate(joined);
      CHECK(count(joined, kLinearWeightGradient) == (sums ? 1 : 0));
      CHECK(count(joined, kLinearGeluBackward) == (gelus ? 2 : 0));
    }
  }
}

TEST_CASE("fuse_linear_backward: other readers, other units and other sums keep nodes apart") {
  const auto joined = [](const Variant& v) {
    return fuse_linear_backward(gradients_of(v), joining());
  };
  CHECK(count(joined({.keeps_gradient = true}), kLinearGeluBackward) == 1);
  CHECK(count(joined({.two_units = true}), kLinearGeluBackward) == 0);
  CHECK(count(joined({.two_units = true}), kLinearWeightGradient) == 1);
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {4, 3}),
              dy = tracer.input("dy", DType::f32, {4, 5});
  tracer.output("product", matmul(x, dy, {.transpose_a = true}));
  tracer.output("rows", sum(dy, 2));
  tracer.output("others", sum(x, 1));
  {
    const auto unit = tracer.unit("other");
    tracer.output("elsewhere", sum(dy, 1));
  }
  const Graph sums = fuse_linear_backward(tracer.graph(), joining());
  CHECK(count(sums, kLinearWeightGradient) == 0);
  CHECK(count(sums, kSum) == 3);
}

}  // namespace ashlar::test
