// From a function to one graph of forward and backward.
#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "base/floating.hpp"
#include "graph/forward_backward.hpp"
#include "graph/remove_unused.hpp"

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// By node: does it depend on one of these values?
std::vector<bool> depends_on(const Graph& graph, std::span<const ValueId> values) {
  std::vector<bool> value(graph.values.size(), false), node;
  for (const ValueId id : values) {
    if (id != kNoValue) value[index(id)] = true;
  }
  for (const Node& n : graph.nodes) {
    node.push_back(std::any_of(n.inputs.begin(), n.inputs.end(),
                               [&](ValueId id) { return id != kNoValue && value[index(id)]; }));
    for (const ValueId id : n.outputs) value[index(id)] = node.back();
  }
  return node;
}

/// Traces forward, marks where it ends, traces backward. Names of inputs and outputs tell what
/// they are.
void trace(Tracer& tracer, const Function& f, std::span<const TensorType> inputs) {
  std::vector<Value> arguments, cotangents, outputs;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    arguments.push_back(tracer.input(fmt::format("input {}", i), inputs[i].dtype, inputs[i].shape));
  const Linearized backward = vjp(f, arguments);
  if (tracer.graph().inputs.size() != inputs.size())
    throw InvalidArgument("a function to differentiate takes its inputs as arguments only");
  for (const Value& output : backward.outputs) outputs.push_back(contiguous(output));
  for (Node& node : tracer.graph().nodes) node.backward = false;
  const std::size_t pause = tracer.graph().nodes.size();
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const TensorType type = outputs[i].type();
    tracer.output(fmt::format("output {}", i), outputs[i]);
    cotangents.push_back(is_float(type.dtype)
                             ? tracer.input(fmt::format("cotangent {}", i), type.dtype, type.shape)
                             : Value());
  }
  const std::vector<Value> gradients = backward.linear(cotangents);
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    if (gradients[i]) tracer.output(fmt::format("gradient {}", i), contiguous(gradients[i]));
  }
  auto& nodes = tracer.graph().nodes;
  for (std::size_t n = pause; n < nodes.size(); ++n) nodes[n].backward = true;
}

}  // namespace

ForwardBackward::Program differentiate(const Function& f, std::span<const TensorType> inputs) {
  Tracer tracer;
  trace(tracer, f, inputs);
  ForwardBackward::Program program;
  program.graph = remove_unused(tracer.graph());
  const Graph& graph = program.graph;
  const auto first_backward = std::find_if(graph.nodes.begin(), graph.nodes.end(),
                                           [](const Node& node) { return node.backward; });
  program.pause = static_cast<int>(first_backward - graph.nodes.begin());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    program.inputs.push_back(graph.input(fmt::format("input {}", i)));
    program.gradients.push_back(graph.output(fmt::format("gradient {}", i)));
  }
  for (std::size_t i = 0; i < graph.outputs.size(); ++i) {
    const ValueId output = graph.output(fmt::format("output {}", i));
    if (output == kNoValue) break;
    program.outputs.push_back(output);
    program.cotangents.push_back(graph.input(fmt::format("cotangent {}", i)));
  }
  program.by_cotangent = depends_on(graph, program.cotangents);
  return program;
}

}  // namespace ashlar
