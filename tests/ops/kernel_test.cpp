// What holds for kernels of any op: every instruction set computes the same up to rounding, results
// may overwrite the inputs that a row names, exp keeps its digits, bad operands are named.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstring>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "ops/harness.hpp"

namespace ashlar::test {
namespace {

using Values = std::span<const Value>;

/// Every kernel of this room's own, in one graph.
Case everything() {
  return {.name = "everything",
          .inputs = {{.shape = {2, 70, 3 * 36}},
                     {.shape = {2, 70}, .low = 0, .high = 9, .integer = true},
                     {.shape = {9, 36}},
                     {.shape = {71, 36}},
                     {.shape = {36}},
                     {.shape = {36}}},
          .build =
              [](Tracer&, Values v) {
                const Value h = embedding(v[1], v[2], v[3]);
                const Value a = dropout(causal_attention(v[0], 2), 0.2);
                const auto [total, y] = add_layer_norm(h, a, v[4], v[5]);
                const Value z = multiply(gelu(layer_norm(y, v[4], v[5])), softmax(total));
                const Value w = add(tanh(z), subtract(exp(z), divide(total, exp(y))));
                const Value r = rotary(rms_norm(w, v[4]), 2);
                const Value s = swiglu(grouped_query_attention(r, w, total, 2, 2), silu(r));
                const Value logits = contiguous(transpose(w, 0, 1));
                const Value targets = reshape(v[1], {70, 2});
                return std::vector{w, s, cross_entropy(logits, targets), mean(w), sum(w, 0b11U)};
              },
          .f32_tolerance = 400,
          .bf16_tolerance = 24};
}

/// The bytes of one node's outputs after a run on `inputs`; `reuse` >= 0 puts output 0 over that
/// input.
std::vector<std::byte> run_node(const Graph& graph, const Node& node, int reuse) {
  std::vector<Buffer> memory;
  std::vector<TensorView> inputs, outputs;
  std::vector<TensorType> input_types, output_types;
  for (const ValueId id : node.inputs) {
    input_types.push_back(id == kNoValue ? TensorType() : graph[id].type);
    inputs.emplace_back();
    if (id == kNoValue) continue;
    const TensorType& type = input_types.back();
    memory.emplace_back(host_memory(), type.bytes(), Category::activation);
    inputs.back() = memory.back().view(type.dtype, type.shape);
    const Doubles values = random_values(type.elements(), 0.5, 1, 7 + memory.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (type.dtype == DType::f32) inputs.back().as<float>()[i] = static_cast<float>(values[i]);
      if (type.dtype == DType::i32) inputs.back().as<std::int32_t>()[i] = static_cast<int>(i % 3);
    }
  }
  for (const ValueId id : node.outputs) {
    const TensorType& type = graph[id].type;
    output_types.push_back(type);
    memory.emplace_back(host_memory(), type.bytes(), Category::activation);
    std::memset(memory.back().data(), 0xff, static_cast<std::size_t>(type.bytes()));
    outputs.push_back(memory.back().view(type.dtype, type.shape));
  }
  if (reuse >= 0) outputs[0].data = inputs[static_cast<std::size_t>(reuse)].data;
  const OpShapes shapes{input_types, output_types, node.attributes};
  const Buffer workspace(host_memory(), node.op->workspace ? node.op->workspace(shapes, {}) : 0,
                         Category::workspace);
  const auto plan = node.op->prepare ? node.op->prepare(shapes, {}) : nullptr;
  const RunContext context;
  node.op->run({context, node.attributes, inputs, outputs, workspace.data(), plan.get()});
  std::vector<std::byte> bytes;
  for (const TensorView& y : outputs) bytes.insert(bytes.end(), y.data, y.data + y.bytes());
  return bytes;
}

float exp_once(float x) {
  const Case c{.name = "exp", .inputs = {{.shape = {1}}}, .build = [](Tracer&, Values v) {
                 return std::vector{exp(v[0])};
               }};
  return static_cast<float>(
      run(c, std::vector<Doubles>{{static_cast<double>(x)}}, {.dtype = DType::f32}).values[0][0]);
}

}  // namespace

TEST_CASE("ops: every instruction set agrees with f64 and with finite differences") {
  const std::int64_t supported = hwy::SupportedTargets() & HWY_TARGETS;
  for (std::int64_t target = 1; target > 0 && target <= HWY_SCALAR; target <<= 1) {
    if ((supported & target) == 0) continue;
    INFO(std::string(hwy::TargetName(target)));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    check(everything());
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

TEST_CASE("ops: results may lie over the inputs that the row names") {
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {6, 38}),
              r = tracer.input("r", DType::f32, {6, 38});
  const Value w = tracer.input("w", DType::f32, {38}), b = tracer.input("b", DType::f32, {38});
  const Value targets = tracer.input("targets", DType::i32, {6});
  const auto [total, y] = add_layer_norm(x, r, w, b);
  std::vector<Value> outputs{total,
                             y,
                             layer_norm(x, w, b),
                             add(x, r),
                             subtract(x, r),
                             multiply(x, r),
                             divide(x, r),
                             scale(x, 3),
                             exp(x),
                             log(x),
                             tanh(x),
                             gelu(x),
                             softmax(x),
                             dropout(x, 0.5),
                             rms_norm(x, w),
                             silu(x),
                             swiglu(x, r),
                             rotary(reshape(x, {3, 2, 38}), 1)};
  outputs.push_back(cross_entropy(x, targets));
  std::vector<Value> cotangents;
  for (const Value& output : outputs) {
    const TensorType type = output.type();
    cotangents.push_back(
        tracer.input(fmt::format("g{}", cotangents.size()), type.dtype, type.shape));
  }
  vjp(tracer, outputs, cotangents, std::vector{x, r, w, b});
  int tried = 0;
  for (const Node& node : tracer.graph().nodes) {
    for (const int input : node.op->may_reuse) {
      if (node.inputs[static_cast<std::size_t>(input)] == kNoValue) continue;
      INFO(node.op->name << " over input " << input);
      CHECK(run_node(tracer.graph(), node, input) == run_node(tracer.graph(), node, -1));
      ++tried;
    }
  }
  CHECK(tried > 50);
}

TEST_CASE("ops: exp is within 2 ulp in f32, and exact at the ends") {
  const std::int64_t n = 200001;
  Doubles x(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i)
    x[static_cast<std::size_t>(i)] =
        rounded(-87.3 + 176.0 * static_cast<double>(i) / static_cast<double>(n), DType::f32);
  const Case c{.name = "exp", .inputs = {{.shape = {n}}}, .build = [](Tracer&, Values v) {
                 return std::vector{exp(v[0])};
               }};
  const Doubles y = run(c, std::vector<Doubles>{x}, {.dtype = DType::f32}).values[0];
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(x[i]);
    const auto near = static_cast<float>(exact);
    const double ulp =
        static_cast<double>(std::nextafter(near, INFINITY)) - static_cast<double>(near);
    worst = std::max(worst, std::abs(y[i] - exact) / ulp);
  }
  CHECK(worst < 2);
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(exp_once(0) == 1);
  CHECK(exp_once(-infinity) == 0);
  CHECK(exp_once(-104) == 0);
  CHECK(exp_once(infinity) == infinity);
  CHECK(exp_once(88.73F) == infinity);
  CHECK(exp_once(88.72F) < infinity);
  CHECK(std::isnan(exp_once(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("ops: operands that do not fit are named with the line that wrote them") {
  Tracer tracer;
  const Value x = tracer.input("x", DType::f32, {2, 3}), h = tracer.input("h", DType::i32, {2, 3});
  const Value b = tracer.input("b", DType::bf16, {2, 3}), i = tracer.input("i", DType::i32, {2});
  CHECK_THROWS_WITH_AS(add(x, tracer.input("z", DType::f32, {4})),
                       doctest::Contains("kernel_test.cpp"), InvalidArgument);
  CHECK_THROWS_WITH_AS(add(x, b), doctest::Contains("f32[2, 3] and bf16[2, 3]"), InvalidArgument);
  CHECK_THROWS_WITH_AS(gelu(h), doctest::Contains("not in i32"), InvalidArgument);
  CHECK_THROWS_AS(layer_norm(x, x, x), InvalidArgument);
  CHECK_THROWS_AS(causal_attention(x, 2), InvalidArgument);
  CHECK_THROWS_AS(causal_attention(tracer.input("qkv", DType::f32, {1, 2, 12}), 3),
                  InvalidArgument);
  CHECK_THROWS_AS(cross_entropy(x, tracer.input("t", DType::i32, {3})), InvalidArgument);
  CHECK_THROWS_AS(embedding(x, x, {}), InvalidArgument);
  CHECK_THROWS_AS(embedding(i, x, tracer.input("p", DType::f32, {1, 3})), InvalidArgument);
}

}  // namespace ashlar::test
