#include <algorithm>
#include <optional>
#include <utility>

#include "ops/product/linear_cross_entropy.hpp"
#include "ops/product/linear_cross_entropy_rows.hpp"

namespace ashlar {
namespace {

std::size_t index(int i) { return static_cast<std::size_t>(i); }

/// Nodes in (after, before) that `value` is computed from. Nothing when `after` is among them.
std::optional<std::vector<bool>> sources_after(const Graph& graph, ValueId value, int after,
                                               int before) {
  std::vector<bool> needed(graph.nodes.size(), false);
  const auto mark = [&](ValueId id) {
    if (id != kNoValue && graph[id].producer >= 0) needed[index(graph[id].producer)] = true;
  };
  mark(value);
  for (int i = before - 1; i > after; --i) {
    if (!needed[index(i)]) continue;
    for (const ValueId id : graph.nodes[index(i)].inputs) mark(id);
  }
  if (needed[index(after)]) return std::nullopt;
  return needed;
}

Node joined(const Node& loss, const Node& gradient) {
  Node node = loss;
  node.op = &kLinearCrossEntropyWithGradient;
  node.attributes = gradient.attributes;
  node.inputs = gradient.inputs;
  node.outputs.insert(node.outputs.end(), gradient.outputs.begin(), gradient.outputs.end());
  return node;
}

void number_producers(Graph& graph) {
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const ValueId id : graph.nodes[i].outputs) graph[id].producer = static_cast<int>(i);
  }
}

/// Replaces both nodes by one in the place of `loss`; what dloss is computed from moves before it.
bool fuse(Graph& graph, int loss, int gradient) {
  const ValueId dloss = graph.nodes[index(gradient)].inputs[3];
  const auto sources = sources_after(graph, dloss, loss, gradient);
  if (!sources) return false;
  std::vector<Node> nodes(graph.nodes.begin(), graph.nodes.begin() + loss);
  for (int i = loss + 1; i < gradient; ++i) {
    if ((*sources)[index(i)]) nodes.push_back(graph.nodes[index(i)]);
  }
  nodes.push_back(joined(graph.nodes[index(loss)], graph.nodes[index(gradient)]));
  for (int i = loss + 1; i < static_cast<int>(graph.nodes.size()); ++i) {
    const bool moved = i < gradient && (*sources)[index(i)];
    if (!moved && i != gradient) nodes.push_back(graph.nodes[index(i)]);
  }
  graph.nodes = std::move(nodes);
  number_producers(graph);
  return true;
}

/// The gradient of the loss that node `loss` computes; -1: none.
int gradient_of(const Graph& graph, int loss) {
  const Node& forward = graph.nodes[index(loss)];
  for (int i = loss + 1; i < static_cast<int>(graph.nodes.size()); ++i) {
    const Node& node = graph.nodes[index(i)];
    if (node.op == &kLinearCrossEntropyGradient && node.section == forward.section &&
        std::equal(forward.inputs.begin(), forward.inputs.end(), node.inputs.begin()))
      return i;
  }
  return -1;
}

}  // namespace

Graph fuse_cross_entropy(Graph graph) {
  for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i) {
    if (graph.nodes[index(i)].op != &kLinearCrossEntropy) continue;
    const int gradient = gradient_of(graph, i);
    if (gradient >= 0) fuse(graph, i, gradient);
  }
  return graph;
}

}  // namespace ashlar
