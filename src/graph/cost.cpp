#include "graph/cost.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"

namespace ashlar {

NodeTypes types_of(const Graph& graph, const Node& node) {
  NodeTypes types;
  for (const ValueId id : node.inputs)
    types.inputs.push_back(id == kNoValue ? TensorType{} : graph[id].type);
  for (const ValueId id : node.outputs) types.outputs.push_back(graph[id].type);
  return types;
}

const DeviceKernel* device_kernel(const Node& node, const Backend& backend) {
  if (backend.find_kernel == nullptr || node.op->run == nullptr) return nullptr;
  return backend.find_kernel(node.op->name);
}

std::int64_t workspace_of(const Graph& graph, const Node& node, const Backend& backend) {
  const DeviceKernel* kernel = device_kernel(node, backend);
  const bool differs = kernel != nullptr && kernel->workspace != nullptr;
  if (!differs && node.op->workspace == nullptr) return 0;
  const NodeTypes types = types_of(graph, node);
  const OpShapes shapes{types.inputs, types.outputs, node.attributes};
  return differs ? kernel->workspace(shapes) : node.op->workspace(shapes, backend);
}

void require_kernels(const Graph& graph, const Backend& backend) {
  for (const Node& node : graph.nodes) {
    if (node.op->run == nullptr) continue;
    if (backend.device != DeviceType::cpu && device_kernel(node, backend) == nullptr)
      throw InvalidArgument(
          fmt::format("{}: there is no kernel for it on CUDA; run on the CPU", node.op->name));
    for (const auto* ids : {&node.inputs, &node.outputs})
      for (const ValueId id : *ids)
        if (id != kNoValue && graph[id].type.dtype == DType::f16)
          throw InvalidArgument(fmt::format(
              "{}: there are no kernels for f16, it can be planned only; compute in bf16 or f32",
              node.op->name));
  }
}

Cost cost_of(const Graph& graph, const Node& node) {
  if (node.op->cost == nullptr) return {.kind = Cost::Class::none};
  const NodeTypes types = types_of(graph, node);
  return node.op->cost({types.inputs, types.outputs, node.attributes});
}

double flops_of(const Graph& graph) {
  double sum = 0;
  for (const Node& node : graph.nodes) sum += cost_of(graph, node).flops;
  return sum;
}

}  // namespace ashlar
