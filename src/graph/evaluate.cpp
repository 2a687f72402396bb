#include "graph/evaluate.hpp"

#include <fmt/format.h>

#include <cstring>

#include "ashlar/error.hpp"

namespace ashlar {
namespace {

class Evaluation {
 public:
  Evaluation(const Graph& graph, const RunContext& context, MemoryResource& resource,
             const Backend& backend)
      : graph_(graph),
        context_(context),
        resource_(resource),
        backend_(backend),
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

  void bind(ValueId id, TensorView view) { views_[index(id)] = view; }

  void run(const Node& node) {
    std::vector<TensorView> inputs;
    for (const ValueId id : node.inputs)
      inputs.push_back(id == kNoValue ? TensorView{} : views_[index(id)]);
    if (node.op->view != nullptr) {
      make_view(node, inputs[0]);
    } else {
      run_kernel(node, inputs);
    }
    for (const ValueId id : node.inputs) {
      if (id != kNoValue && --uses_[index(id)] == 0) owners_[index(id)].reset();
    }
    for (const ValueId id : node.outputs) {
      if (uses_[index(id)] == 0) owners_[index(id)].reset();
    }
  }

  TensorView view(ValueId id) const { return views_[index(id)]; }

 private:
  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  std::shared_ptr<Buffer> allocate(std::int64_t bytes, Category category) {
    auto buffer = std::make_shared<Buffer>(resource_, bytes, category);
    std::memset(buffer->data(), 0xff,
                static_cast<std::size_t>(bytes));  // NaN: an output that is not written shows
    return buffer;
  }

  void make_view(const Node& node, const TensorView& input) {
    const ValueInfo& out = graph_[node.outputs[0]];
    const auto layout =
        node.op->view(graph_[node.inputs[0]].type, input.strides, out.type, node.attributes);
    const int rank = context_.communicator == nullptr ? 0 : context_.communicator->rank();
    views_[index(node.outputs[0])] = {
        input.data + (layout->offset + rank * layout->rank_stride) * size_of(out.type.dtype),
        out.type.dtype, out.type.shape, layout->strides};
    owners_[index(node.outputs[0])] = owners_[index(node.inputs[0])];
  }

  void run_kernel(const Node& node, const std::vector<TensorView>& inputs) {
    std::vector<TensorType> input_types, output_types;
    for (const ValueId id : node.inputs)
      input_types.push_back(id == kNoValue ? TensorType{} : graph_[id].type);
    for (const ValueId id : node.outputs) output_types.push_back(graph_[id].type);
    const OpShapes shapes{input_types, output_types, node.attributes};
    std::vector<TensorView> outputs;
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      const ValueId id = node.outputs[i];
      int reused = -1;
      for (const auto& [output, input] : in_place_pairs(node)) {
        if (output == static_cast<int>(i)) reused = input;
      }
      if (reused >= 0) {
        views_[index(id)] = inputs[static_cast<std::size_t>(reused)];
        owners_[index(id)] = owners_[index(node.inputs[static_cast<std::size_t>(reused)])];
      } else {
        owners_[index(id)] = allocate(graph_[id].type.bytes(), graph_[id].category);
        views_[index(id)] = {owners_[index(id)]->data(), graph_[id].type.dtype,
                             graph_[id].type.shape};
      }
      outputs.push_back(views_[index(id)]);
    }
    const std::int64_t scratch =
        node.op->workspace == nullptr ? 0 : node.op->workspace(shapes, backend_);
    const auto workspace = scratch > 0 ? allocate(scratch, Category::workspace) : nullptr;
    const auto plan = node.op->prepare == nullptr ? nullptr : node.op->prepare(shapes, backend_);
    node.op->run({context_, node.attributes, inputs, outputs,
                  workspace ? workspace->data() : nullptr, plan.get()});
  }

  const Graph& graph_;
  const RunContext& context_;
  MemoryResource& resource_;
  const Backend& backend_;
  std::vector<TensorView> views_;
  std::vector<std::shared_ptr<Buffer>> owners_;
  std::vector<int> uses_;
};

}  // namespace

Tensors evaluate(const Graph& graph, const std::map<std::string, TensorView>& inputs,
                 const RunContext& context, MemoryResource& resource, const Backend& backend) {
  Evaluation evaluation(graph, context, resource, backend);
  for (const ValueId id : graph.inputs) {
    const auto found = inputs.find(graph[id].name);
    if (found == inputs.end())
      throw InvalidArgument(fmt::format("input '{}' is missing", graph[id].name));
    if (found->second.dtype != graph[id].type.dtype ||
        !(found->second.shape == graph[id].type.shape)) {
      throw InvalidArgument(
          fmt::format("input '{}' is {}{}, the graph takes {}{}", graph[id].name,
                      name_of(found->second.dtype), to_string(found->second.shape),
                      name_of(graph[id].type.dtype), to_string(graph[id].type.shape)));
    }
    evaluation.bind(id, found->second);
  }
  for (const Node& node : graph.nodes) evaluation.run(node);
  Tensors results;
  for (const auto& [name, id] : graph.outputs) {
    const TensorView from = evaluation.view(id);
    if (!from.contiguous())
      throw InvalidArgument(fmt::format("output '{}' is a strided view; make it contiguous", name));
    Buffer copy(host_memory(), from.bytes(), Category::activation);
    std::memcpy(copy.data(), from.data, static_cast<std::size_t>(from.bytes()));
    const TensorView view(copy.data(), from.dtype, from.shape);
    results.emplace(name, std::make_pair(std::move(copy), view));
  }
  return results;
}

}  // namespace ashlar
