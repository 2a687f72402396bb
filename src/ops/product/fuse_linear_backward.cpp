#include "ops/product/fuse_linear_backward.hpp"

#include <algorithm>
#include <vector>

#include "graph/remove_unused.hpp"
#include "ops/product/linear_rows.hpp"
#include "ops/reduce.hpp"

namespace ashlar {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

bool has_kernel(const Backend& backend, const OpDef& op) {
  return backend.find_kernel != nullptr && backend.find_kernel(op.name) != nullptr;
}

bool run_together(const Node& a, const Node& b) {
  return a.unit == b.unit && a.section == b.section && a.backward == b.backward &&
         a.micro_batch == b.micro_batch;
}

/// A product of two matrices, transposed so.
bool multiplies(const Graph& graph, const Node& node, bool transpose_a, bool transpose_b) {
  return node.op == &kMatmul && graph[node.inputs[0]].type.shape.rank() == 2 &&
         graph[node.inputs[1]].type.shape.rank() == 2 &&
         (node.attributes.integer("transpose_a") != 0) == transpose_a &&
         (node.attributes.integer("transpose_b") != 0) == transpose_b;
}

/// How often each value is read, by nodes and as an output.
std::vector<int> count_readers(const Graph& graph) {
  std::vector<int> readers(graph.values.size(), 0);
  for (const Node& node : graph.nodes)
    for (const ValueId id : node.inputs)
      if (id != kNoValue) ++readers[index(id)];
  for (const auto& [name, id] : graph.outputs) ++readers[index(id)];
  return readers;
}

/// True when a node's output is its input in another shape.
bool reshapes(const Graph& graph, const Node& node) {
  if (node.op->view == nullptr) return false;
  const ValueInfo &from = graph[node.inputs[0]], &to = graph[node.outputs[0]];
  const auto whole = [](const ValueInfo& value) {
    return value.strides == contiguous_strides(value.type.shape);
  };
  return whole(from) && whole(to) && from.type.elements() == to.type.elements();
}

/// The product dy weight^T that `value` is a shape of, where nothing else reads it.
const Node* product_behind(const Graph& graph, const std::vector<int>& readers, ValueId value) {
  while (readers[index(value)] == 1 && graph[value].producer >= 0) {
    const Node& node = graph.nodes[index(graph[value].producer)];
    if (multiplies(graph, node, false, true)) return &node;
    if (!reshapes(graph, node)) return nullptr;
    value = node.inputs[0];
  }
  return nullptr;
}

/// What led to a joined product is left unread.
void join_gelus(Graph& graph) {
  const std::vector<int> readers = count_readers(graph);
  for (Node& node : graph.nodes) {
    if (node.op != &kGeluColumnsBackward || graph[node.inputs[0]].type.shape.rank() != 2) continue;
    const Node* product = product_behind(graph, readers, node.inputs[1]);
    if (product == nullptr || !run_together(*product, node) ||
        graph[product->inputs[0]].type.dtype != graph[node.inputs[0]].type.dtype)
      continue;
    node.inputs = {product->inputs[0], product->inputs[1], node.inputs[0]};
    node.op = &kLinearGeluBackward;
  }
}

/// The node behind `product` that sums the columns of its second operand, or the end.
std::vector<Node>::iterator sum_beside(Graph& graph, std::vector<Node>::iterator product) {
  return std::find_if(product + 1, graph.nodes.end(), [&](const Node& node) {
    return node.op == &kSum && node.inputs[0] == product->inputs[1] &&
           node.attributes.integer("axes") == 1 && run_together(*product, node);
  });
}

/// Each product takes over the output of the sum beside it. Producers are not numbered anew.
void join_sums(Graph& graph) {
  for (auto node = graph.nodes.begin(); node != graph.nodes.end(); ++node) {
    if (!multiplies(graph, *node, true, false)) continue;
    const auto sum = sum_beside(graph, node);
    if (sum == graph.nodes.end()) continue;
    node->op = &kLinearWeightGradient;
    node->attributes = {{"dtype", node->attributes.integer("dtype")},
                        {"bias_dtype", sum->attributes.integer("dtype")},
                        {"axes", std::int64_t{1}}};
    node->outputs.push_back(sum->outputs[0]);
    graph.nodes.erase(sum);
  }
}

}  // namespace

Graph fuse_linear_backward(Graph graph, const Backend& backend) {
  const bool sums = has_kernel(backend, kLinearWeightGradient);
  const bool gelus = has_kernel(backend, kLinearGeluBackward);
  if (!sums && !gelus) return graph;
  if (gelus) join_gelus(graph);
  if (sums) join_sums(graph);
  return remove_unused(graph);
}

}  // namespace ashlar
