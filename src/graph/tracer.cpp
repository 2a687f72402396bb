#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"
#include "ashlar/op.hpp"
#include "ashlar/ops.hpp"

namespace ashlar {

TensorType Value::type() const {
  if (tracer_ == nullptr) throw Error("an absent value was asked for its type");
  return tracer_->graph()[id_].type;
}

bool Value::contiguous() const {
  const ValueInfo& value = tracer_->graph()[id_];
  return value.strides == contiguous_strides(value.type.shape);
}

ValueId Tracer::add_value(const TensorType& type, Category category) {
  ValueInfo value;
  value.strides = contiguous_strides(type.shape);
  value.type = type;
  value.category = category;
  graph_.values.push_back(std::move(value));
  return static_cast<ValueId>(graph_.values.size() - 1);
}

Value Tracer::input(std::string name, DType dtype, const Shape& shape, Category category) {
  const ValueId id = add_value({dtype, shape}, category);
  graph_[id].input = InputKind::data;
  graph_[id].name = std::move(name);
  graph_.inputs.push_back(id);
  return {this, id};
}

Value Tracer::parameter(Parameter declaration) {
  for (const ValueId id : graph_.inputs) {
    if (graph_[id].input != InputKind::parameter || graph_[id].name != declaration.name) continue;
    if (!(graph_[id].type == TensorType{declaration.dtype, declaration.shape})) {
      throw InvalidArgument(fmt::format(
          "parameter '{}' is declared twice with different shapes: {} and {}", declaration.name,
          to_string(graph_[id].type.shape), to_string(declaration.shape)));
    }
    return {this, id};
  }
  const ValueId id = add_value({declaration.dtype, declaration.shape}, Category::parameter);
  graph_[id].input = InputKind::parameter;
  graph_[id].name = declaration.name;
  graph_[id].parameter = static_cast<int>(graph_.parameters.size());
  graph_.inputs.push_back(id);
  if (unit_ < 0)
    throw InvalidArgument(
        fmt::format("parameter '{}' is declared outside of a unit", declaration.name));
  declaration.unit = unit_;
  graph_.parameters.push_back(std::move(declaration));
  return {this, id};
}

Value Tracer::state(std::string name, DType dtype, const Shape& shape, Category category) {
  const Value value = input(std::move(name), dtype, shape, category);
  graph_[value.id()].input = InputKind::state;
  return value;
}

void Tracer::output(std::string name, Value value) {
  graph_.outputs.emplace_back(std::move(name), value.id());
}

Tracer::UnitScope Tracer::unit(std::string_view name) {
  for (std::size_t i = 0; i < graph_.units.size(); ++i) {
    if (graph_.units[i] == name) return {*this, static_cast<int>(i)};
  }
  graph_.units.emplace_back(name);
  return {*this, static_cast<int>(graph_.units.size() - 1)};
}

std::vector<Value> Tracer::apply(const OpDef& op, std::span<const Value> inputs,
                                 Attributes attributes, std::source_location where) {
  Node node{&op, std::move(attributes), {}, {}, unit_, section_, backward_, micro_batch_, where};
  std::vector<TensorType> types;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Value value = inputs[i];
    const bool strided =
        op.view != nullptr || std::find(op.strided_inputs.begin(), op.strided_inputs.end(),
                                        static_cast<int>(i)) != op.strided_inputs.end();
    if (value && !strided) value = contiguous(value, where);
    node.inputs.push_back(value ? value.id() : kNoValue);
    types.push_back(value ? value.type() : TensorType{});
  }
  std::vector<TensorType> results;
  try {
    results = op.shape(types, node.attributes);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(
        fmt::format("{}:{}: {}: {}", where.file_name(), where.line(), op.name, error.what()));
  }
  if (op.view != nullptr) {
    const auto layout =
        op.view(types[0], graph_[node.inputs[0]].strides, results[0], node.attributes);
    if (!layout) {
      const Value copy = contiguous(inputs[0], where);
      return apply(op, {&copy, 1}, std::move(node.attributes), where);
    }
    const ValueId id = add_value(results[0], graph_[node.inputs[0]].category);
    graph_[id].strides = layout->strides;
    node.outputs.push_back(id);
  } else {
    for (const TensorType& type : results)
      node.outputs.push_back(add_value(type, Category::activation));
    for (const auto& [output, input] : in_place_pairs(node)) {
      ValueInfo& updated = graph_[node.outputs[static_cast<std::size_t>(output)]];
      const ValueInfo& old = graph_[node.inputs[static_cast<std::size_t>(input)]];
      updated.category = old.category;
      updated.strides = old.strides;
    }
  }
  std::vector<Value> values;
  for (const ValueId id : node.outputs) {
    graph_[id].producer = static_cast<int>(graph_.nodes.size());
    values.emplace_back(this, id);
  }
  graph_.nodes.push_back(std::move(node));
  return values;
}

Value Tracer::apply1(const OpDef& op, std::initializer_list<Value> inputs, Attributes attributes,
                     std::source_location where) {
  return apply(op, {inputs.begin(), inputs.size()}, std::move(attributes), where)[0];
}

}  // namespace ashlar
