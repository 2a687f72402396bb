#include "graph/evaluate.hpp"

#include <fmt/format.h>

#include <cstring>

#include "ashlar/error.hpp"
#include "graph/evaluation.hpp"

namespace ashlar {

Tensors evaluate(const Graph& graph, const std::map<std::string, TensorView>& inputs,
                 const RunContext& context, MemoryResource& resource, const Backend& backend) {
  Evaluation evaluation(graph, {context, &resource, backend, true});
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
