#include "graph/evaluation.hpp"

#include <cstring>

namespace ashlar {

Evaluation::Evaluation(const Graph& graph, const Options& options)
    : graph_(&graph),
      options_(options),
      views_(graph.values.size()),
      owners_(graph.values.size()),
      uses_(graph.values.size(), 0) {
  for (const Node& node : graph.nodes) {
    for (const ValueId id : node.inputs) {
      if (id != kNoValue) ++uses_[index(id)];
    }
  }
  for (const auto& [name, id] : graph.outputs) ++uses_[index(id)];
}

void Evaluation::bind(ValueId id, const TensorView& view, std::shared_ptr<const Buffer> owner) {
  views_[index(id)] = view;
  if (uses_[index(id)] > 0) owners_[index(id)] = std::move(owner);
}

void Evaluation::run(const Node& node, const void* plan) {
  std::vector<TensorView> inputs;
  for (const ValueId id : node.inputs)
    inputs.push_back(id == kNoValue ? TensorView{} : views_[index(id)]);
  if (node.op->view != nullptr) {
    make_view(node, inputs[0]);
  } else {
    run_kernel(node, inputs, plan);
  }
  release_uses(node);
}

void Evaluation::share(const Node& node, const Evaluation& other) {
  for (const ValueId id : node.outputs) {
    views_[index(id)] = other.views_[index(id)];
    owners_[index(id)] = other.owners_[index(id)];
  }
  release_uses(node);
}

std::pair<TensorView, std::shared_ptr<const Buffer>> Evaluation::take(ValueId id) {
  std::pair result(views_[index(id)], owners_[index(id)]);
  if (--uses_[index(id)] == 0) owners_[index(id)].reset();
  return result;
}

void Evaluation::release_uses(const Node& node) {
  for (const ValueId id : node.inputs) {
    if (id != kNoValue && --uses_[index(id)] == 0) owners_[index(id)].reset();
  }
  for (const ValueId id : node.outputs) {
    if (uses_[index(id)] == 0) owners_[index(id)].reset();
  }
}

std::shared_ptr<const Buffer> Evaluation::allocate(std::int64_t bytes, Category category) const {
  auto buffer = std::make_shared<const Buffer>(*options_.memory, bytes, category);
  if (options_.poison) std::memset(buffer->data(), 0xff, static_cast<std::size_t>(bytes));
  return buffer;
}

void Evaluation::make_view(const Node& node, const TensorView& input) {
  const Graph& graph = *graph_;
  const ValueInfo& out = graph[node.outputs[0]];
  const auto layout =
      node.op->view(graph[node.inputs[0]].type, input.strides, out.type, node.attributes);
  const Communicator* communicator = options_.context.communicator;
  const int rank = communicator == nullptr ? 0 : communicator->rank();
  views_[index(node.outputs[0])] = {
      input.data + (layout->offset + rank * layout->rank_stride) * size_of(out.type.dtype),
      out.type.dtype, out.type.shape, layout->strides};
  owners_[index(node.outputs[0])] = owners_[index(node.inputs[0])];
}

TensorView Evaluation::make_output(const Node& node, int output,
                                   const std::vector<TensorView>& inputs) {
  const ValueId id = node.outputs[index(output)];
  for (const auto& [updated, input] : in_place_pairs(node)) {
    if (updated != output) continue;
    owners_[index(id)] = owners_[index(node.inputs[index(input)])];
    return views_[index(id)] = inputs[index(input)];
  }
  const ValueInfo& value = (*graph_)[id];
  owners_[index(id)] = allocate(value.type.bytes(), value.category);
  return views_[index(id)] = {owners_[index(id)]->data(), value.type.dtype, value.type.shape};
}

void Evaluation::run_kernel(const Node& node, const std::vector<TensorView>& inputs,
                            const void* plan) {
  const Graph& graph = *graph_;
  std::vector<TensorType> input_types, output_types;
  for (const ValueId id : node.inputs)
    input_types.push_back(id == kNoValue ? TensorType{} : graph[id].type);
  for (const ValueId id : node.outputs) output_types.push_back(graph[id].type);
  const OpShapes shapes{input_types, output_types, node.attributes};
  std::vector<TensorView> outputs;
  for (std::size_t i = 0; i < node.outputs.size(); ++i)
    outputs.push_back(make_output(node, static_cast<int>(i), inputs));
  const std::int64_t scratch =
      node.op->workspace == nullptr ? 0 : node.op->workspace(shapes, options_.backend);
  const auto workspace = scratch > 0 ? allocate(scratch, Category::workspace) : nullptr;
  std::shared_ptr<const void> prepared;
  if (plan == nullptr && node.op->prepare != nullptr) {
    prepared = node.op->prepare(shapes, options_.backend);
    plan = prepared.get();
  }
  node.op->run({options_.context, node.attributes, inputs, outputs,
                workspace ? workspace->data() : nullptr, plan});
}

}  // namespace ashlar
