// What a node is made of and what it costs.
#pragma once

#include <vector>

#include "ashlar/op.hpp"

namespace ashlar {

/// The types of a node's operands; absent inputs are f32 scalars.
struct NodeTypes {
  std::vector<TensorType> inputs, outputs;
};
NodeTypes types_of(const Graph& graph, const Node& node);

/// The kernel that runs the node in its row's place; null where the row's own does.
const DeviceKernel* device_kernel(const Node& node, const Backend& backend);

/// Bytes of scratch memory of one run of the node; 0 for most. Rows may prepare a library's kernel
/// to know it: not cheap.
std::int64_t workspace_of(const Graph& graph, const Node& node, const Backend& backend);

/// @throws InvalidArgument for an element type that steps can be planned in but no kernel computes
/// in: f16; and for a node that nothing can run on the backend's device.
void require_kernels(const Graph& graph, const Backend& backend);

/// What one run of the node costs by its row; nothing for views and rows without a cost.
Cost cost_of(const Graph& graph, const Node& node);
/// Floating-point operations of all nodes, each run once.
double flops_of(const Graph& graph);

}  // namespace ashlar
