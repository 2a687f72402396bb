#include "graph/sweep.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"

namespace ashlar {

std::vector<Value> handles(Tracer& tracer, std::span<const ValueId> ids) {
  std::vector<Value> values;
  for (const ValueId id : ids) values.push_back(id == kNoValue ? Value() : Value(&tracer, id));
  return values;
}

Expansion expand(Tracer& tracer, const Node& node) {
  if (node.op->expand == nullptr) {
    const auto reason = node.op->not_differentiable;
    throw InvalidArgument(
        fmt::format("'{}' is on the path of a derivative ({}:{}) but is not {}{}", node.op->name,
                    node.where.file_name(), node.where.line(),
                    reason.empty() ? "differentiable" : "differentiable: ", reason));
  }
  const int first = nodes_since(tracer).last;
  Expansion expansion;
  expansion.outputs = node.op->expand(handles(tracer, node.inputs), node.attributes);
  expansion.nodes = nodes_since(tracer, first);
  return expansion;
}

void check_types(std::span<const Value> values, std::span<const Value> given, const char* what) {
  if (values.size() != given.size()) {
    throw InvalidArgument(
        fmt::format("{} {}s are given for {} values", given.size(), what, values.size()));
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!given[i] || given[i].type() == values[i].type()) continue;
    throw InvalidArgument(fmt::format("{} {} is {}{}, its value is {}{}", what, i,
                                      name_of(given[i].dtype()), to_string(given[i].shape()),
                                      name_of(values[i].dtype()), to_string(values[i].shape())));
  }
}

}  // namespace ashlar
