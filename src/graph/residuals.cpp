// What backward keeps.
#include <fmt/format.h>

#include <set>

#include "ashlar/memory_resource.hpp"
#include "graph/forward_backward.hpp"

namespace ashlar {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

const Node* maker(const Graph& graph, ValueId id) {
  return graph[id].producer < 0 ? nullptr : &graph.nodes[index(graph[id].producer)];
}

/// The value whose memory `id` looks into.
ValueId memory_of(const Graph& graph, ValueId id) {
  while (maker(graph, id) != nullptr && maker(graph, id)->op->view != nullptr)
    id = maker(graph, id)->inputs[0];
  return id;
}

Residual residual(const Graph& graph, ValueId id) {
  const ValueInfo& value = graph[id];
  const Node* node = maker(graph, id);
  const std::string op = node == nullptr ? "" : std::string(node->op->name);
  return {value.name.empty() ? op : value.name, value.type, value.type.bytes(), value.input,
          node == nullptr ? std::source_location() : node->where};
}

std::string line(const Residual& r) {
  const std::string place = r.input == InputKind::none
                                ? fmt::format("{}:{}", r.where.file_name(), r.where.line())
                                : std::string("given");
  return fmt::format("{:>12}  {}{}  {}  {}\n", format_bytes(r.bytes), name_of(r.type.dtype),
                     to_string(r.type.shape), r.name, place);
}

}  // namespace

std::vector<Residual> saved_residuals(const Graph& graph) {
  std::set<ValueId> kept;
  for (const Node& node : graph.nodes) {
    for (const ValueId id : node.inputs) {
      if (!node.backward || id == kNoValue) continue;
      const ValueId memory = memory_of(graph, id);
      const Node* made = maker(graph, memory);
      if (made == nullptr || !made->backward) kept.insert(memory);
    }
  }
  std::vector<Residual> residuals;
  for (const ValueId id : kept) residuals.push_back(residual(graph, id));
  return residuals;
}

std::vector<Residual> saved_residuals(const ForwardBackward::Program& program) {
  std::vector<Residual> residuals = saved_residuals(program.graph);
  std::erase_if(residuals, [](const Residual& r) { return r.name.starts_with("cotangent "); });
  return residuals;
}

std::vector<Residual> saved_residuals(const Function& f, std::span<const TensorType> inputs) {
  return saved_residuals(differentiate(f, inputs));
}

std::string to_string(std::span<const Residual> residuals) {
  std::string text;
  std::int64_t made = 0;
  for (const Residual& r : residuals) {
    text += line(r);
    if (r.input == InputKind::none) made += r.bytes;
  }
  return text + fmt::format("{:>12}  made by forward\n", format_bytes(made));
}

}  // namespace ashlar
