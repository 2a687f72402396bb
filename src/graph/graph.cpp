#include "ashlar/graph.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"
#include "ashlar/op.hpp"

namespace ashlar {
namespace {

const Attributes::Attribute* find(const Attributes& attributes, std::string_view name) {
  for (const auto& [key, value] : attributes.entries()) {
    if (key == name) return &value;
  }
  return nullptr;
}

template <typename T>
const T& get(const Attributes& attributes, std::string_view name) {
  const auto* found = find(attributes, name);
  const T* value = found == nullptr ? nullptr : std::get_if<T>(found);
  if (value == nullptr)
    throw Error(fmt::format("a node has no attribute '{}' of the type asked for", name));
  return *value;
}

std::string to_string(const Attributes::Attribute& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{}", *number);
  if (const auto* list = std::get_if<std::vector<std::int64_t>>(&value))
    return fmt::format("[{}]", fmt::join(*list, " "));
  return ashlar::to_string(std::get<Shape>(value));
}

std::string describe(const Graph& graph, ValueId id) {
  if (id == kNoValue) return "-";
  const ValueInfo& value = graph[id];
  std::string text =
      fmt::format("%{}:{}{}", id, name_of(value.type.dtype), ashlar::to_string(value.type.shape));
  if (!value.name.empty()) text += fmt::format(" '{}'", value.name);
  return text;
}

}  // namespace

std::int64_t Attributes::integer(std::string_view name) const {
  return get<std::int64_t>(*this, name);
}
double Attributes::number(std::string_view name) const { return get<double>(*this, name); }
const Shape& Attributes::shape(std::string_view name) const { return get<Shape>(*this, name); }
const std::vector<std::int64_t>& Attributes::list(std::string_view name) const {
  return get<std::vector<std::int64_t>>(*this, name);
}
bool Attributes::has(std::string_view name) const { return find(*this, name) != nullptr; }

void Attributes::set(std::string_view name, Attribute value) {
  for (auto& [key, old] : entries_) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  entries_.emplace_back(name, std::move(value));
}

ValueId Graph::input(std::string_view name, int micro_batch) const {
  const auto found = std::find_if(inputs.begin(), inputs.end(), [&](ValueId id) {
    return (*this)[id].name == name && (*this)[id].micro_batch == micro_batch;
  });
  return found == inputs.end() ? kNoValue : *found;
}

ValueId Graph::output(std::string_view name) const {
  const auto found = std::find_if(outputs.begin(), outputs.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  return found == outputs.end() ? kNoValue : found->second;
}

std::vector<std::pair<int, int>> in_place_pairs(const Node& node) {
  if (node.op->must_reuse == nullptr) return {};
  auto pairs = node.op->must_reuse(node.inputs.size(), node.attributes);
  std::erase_if(pairs, [&](const auto& pair) {
    return node.inputs[static_cast<std::size_t>(pair.second)] == kNoValue;
  });
  return pairs;
}

std::string_view label_of(const Graph& graph, const Node& node) {
  if (node.unit >= 0) return graph.units[static_cast<std::size_t>(node.unit)];
  return node.outputs.empty() ? std::string_view() : graph[node.outputs[0]].name;
}

std::string to_string(const Graph& graph) {
  std::string text;
  for (const ValueId id : graph.inputs) text += fmt::format("input {}\n", describe(graph, id));
  for (const Node& node : graph.nodes) {
    std::string line;
    for (const ValueId id : node.outputs) line += (line.empty() ? "" : ", ") + describe(graph, id);
    line += fmt::format(" = {}(", node.op->name);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      line += (i == 0 ? "" : ", ") +
              (node.inputs[i] == kNoValue ? "-" : fmt::format("%{}", node.inputs[i]));
    }
    line += ")";
    for (const auto& [name, value] : node.attributes.entries())
      line += fmt::format(" {}={}", name, to_string(value));
    static constexpr std::string_view kSections[] = {"prologue", "body", "update"};
    text +=
        fmt::format("{} {}{}{}\n", line, kSections[static_cast<int>(node.section)],
                    node.backward ? " backward" : "",
                    node.unit < 0 ? "" : " @" + graph.units[static_cast<std::size_t>(node.unit)]);
  }
  for (const auto& [name, id] : graph.outputs) text += fmt::format("output {} = %{}\n", name, id);
  return text;
}

}  // namespace ashlar
