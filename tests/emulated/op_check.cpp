// check() of the op table for kernels on the emulator or on a GPU: this file takes the place of
// ops/harness.cpp, so that the cases of tests/ops run here as they stand. Every node of a case that
// has a CUDA kernel runs on both sides with the same operands. With ASHLAR_OP_RESULTS set, each
// comparison appends a line of JSON to the file it names.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <fstream>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "emulated/device_call.hpp"
#include "graph/evaluation.hpp"
#include "ops/harness.hpp"
#include "support/elements.hpp"

namespace ashlar::test {
namespace {

/// The graph of a case with values for its inputs.
struct Traced {
  Graph graph;
  std::deque<Buffer> memory;
  std::vector<std::pair<ValueId, TensorView>> bound;
};

class Tracing {
 public:
  Value input(const std::string& name, DType dtype, const Shape& shape, const Doubles& values) {
    traced_.memory.emplace_back(host_memory(), shape.elements() * size_of(dtype), Category::input);
    const TensorView view = traced_.memory.back().view(dtype, shape);
    for (std::size_t i = 0; i < values.size(); ++i)
      set_element(view, static_cast<std::int64_t>(i), values[i]);
    const Value value = tracer_.input(name, dtype, shape);
    traced_.bound.emplace_back(value.id(), view);
    return value;
  }
  Value like(char name, Value value) {
    const TensorType type = value.type();
    ++count_;
    return input(fmt::format("{}{}", name, count_), type.dtype, type.shape,
                 random_values(type.elements(), -1, 1, 900 + count_));
  }
  Tracer& tracer() { return tracer_; }
  Traced finish(std::span<const Value> results) {
    for (std::size_t i = 0; i < results.size(); ++i)
      if (results[i]) tracer_.output(fmt::format("y{}", i), contiguous(results[i]));
    traced_.graph = tracer_.graph();
    for (const Node& node : traced_.graph.nodes)  // what nothing reads is compared too
      for (const ValueId id : node.outputs) traced_.graph.outputs.emplace_back("kept", id);
    return std::move(traced_);
  }

 private:
  Tracer tracer_;
  Traced traced_;
  std::uint64_t count_ = 0;
};

/// Outputs and gradients; with `second` also tangents of both, which reaches the expansions.
Traced trace(const Case& c, DType dtype, bool second) {
  Tracing tracing;
  const std::vector<Doubles> inputs = random_inputs(c);
  std::vector<Value> values, wrt;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    values.push_back(tracing.input(fmt::format("x{}", k), c.inputs[k].integer ? DType::i32 : dtype,
                                   c.inputs[k].shape, inputs[k]));
    if (is_wrt(c.inputs[k])) wrt.push_back(values.back());
  }
  std::vector<Value> results = c.build(tracing.tracer(), values);
  std::vector<Value> cotangents, tangents;
  for (const Value& y : results) cotangents.push_back(tracing.like('g', y));
  for (const Value& gradient : vjp(tracing.tracer(), results, cotangents, wrt))
    if (gradient) results.push_back(gradient);
  if (second) {
    for (const Value& x : wrt) tangents.push_back(tracing.like('t', x));
    const std::vector<Value> primal = results;
    for (const Value& t : jvp(tracing.tracer(), primal, wrt, tangents)) results.push_back(t);
  }
  return tracing.finish(results);
}

std::vector<TensorView> views_of(const Evaluation& evaluation, const std::vector<ValueId>& ids) {
  std::vector<TensorView> views;
  for (const ValueId id : ids) views.push_back(id == kNoValue ? TensorView() : evaluation.view(id));
  return views;
}

/// Double is computed on the CPU alone; kernels refuse it (tested apart).
bool has_double(const Graph& graph, const Node& node) {
  const auto is_double = [&](ValueId id) {
    return id != kNoValue && graph[id].type.dtype == DType::f64;
  };
  return std::ranges::any_of(node.inputs, is_double) ||
         std::ranges::any_of(node.outputs, is_double);
}

/// One output of one run of a kernel, compared with the CPU's.
struct Comparison {
  std::string_view op;
  DType dtype;
  double error, tolerance;
  bool same_bits;  // in every run: misaligned, in place, with scalars on the device
};

void record(const Comparison& c) {
  const char* path = std::getenv("ASHLAR_OP_RESULTS");
  if (path == nullptr) return;
  std::ofstream file(path, std::ios::app);
  file << fmt::format(R"({{"op":"{}","dtype":"{}","error":{},"tolerance":{},"same_bits":{}}})",
                      c.op, name_of(c.dtype),
                      std::isfinite(c.error) ? fmt::format("{}", c.error) : "null", c.tolerance,
                      c.same_bits)
       << std::endl;
  if (!file) throw Error(fmt::format("ASHLAR_OP_RESULTS: cannot write {}", path));
}

/// Compares one node; the evaluation has its inputs, and gets its outputs.
void check_node(const std::string& name, const Graph& graph, const Node& node,
                const RunContext& context, Evaluation& evaluation) {
  const cuda::Kernel* kernel = kernel_of(node.op->name);
  if (kernel == nullptr || has_double(graph, node)) return evaluation.run(node);
  std::vector<TensorType> types;
  for (const ValueId id : node.outputs) types.push_back(graph[id].type);
  DeviceCall call =
      call_of(*kernel, *node.op, node.attributes, views_of(evaluation, node.inputs), types);
  call.context = context;
  INFO(name, ": ", std::string(node.op->name));
  const std::vector<std::byte> actual = run_on_device(call);
  bool same_bits = true;
  const auto expect_same = [&](const std::vector<std::byte>& again, const std::string& complaint) {
    same_bits = same_bits && again == actual;
    CHECK_MESSAGE(again == actual, complaint);
  };
  DeviceCall other = call;
  other.misaligned = true;
  const std::vector<std::byte> misaligned = run_once(other);
  if (!depends_on_alignment(node.op->name)) expect_same(misaligned, "bits depend on the alignment");
  for (const int input : node.op->may_reuse) {
    const TensorView& over = call.inputs[static_cast<std::size_t>(input)];
    if (over.data == nullptr || !over.contiguous()) continue;
    other = call;
    other.shared = {{0, input}};
    expect_same(run_on_device(other), fmt::format("output 0 may not lie over input {}", input));
  }
  RunScalars now = context;
  other = call;
  other.context.on_device = &now;
  other.context.seed = ~now.seed;
  other.context.step = 0;
  expect_same(run_once(other), "the scalars on the device were not read");
  evaluation.run(node);
  std::size_t at = 0;
  for (const ValueId id : node.outputs) {
    const TensorView& expected = evaluation.view(id);
    const double tolerance = tolerance_of(
        node.op->name, call.inputs.empty() ? expected.dtype : call.inputs[0].dtype, expected.dtype);
    const auto error_of = [&](const std::vector<std::byte>& bytes) {
      return relative_error(bytes.data() + at, expected.data, expected.elements(), expected.dtype);
    };
    const double error = error_of(actual);
    record({node.op->name, expected.dtype, error, tolerance, same_bits});
    CHECK_MESSAGE(error <= tolerance, "relative error ", error, " of ", name_of(expected.dtype),
                  to_string(expected.shape));
    CHECK(error_of(misaligned) <= tolerance);
    at += static_cast<std::size_t>(expected.bytes());
  }
}

}  // namespace

void check(const Case& c) {
  for (const auto& [dtype, second] :
       {std::pair(DType::f32, false), std::pair(DType::bf16, false), std::pair(DType::f32, true)}) {
    const Traced traced = trace(c, dtype, second);
    RunContext context;
    context.seed = 5;
    context.step = 3;
    context.micro_batch = 2;
    context.first_sample = 7;
    Evaluation evaluation(traced.graph, {.context = context, .poison = true});
    for (const auto& [id, view] : traced.bound) evaluation.bind(id, view);
    for (const Node& node : traced.graph.nodes)
      check_node(fmt::format("{} in {}", c.name, name_of(dtype)), traced.graph, node, context,
                 evaluation);
  }
}

}  // namespace ashlar::test
