// Registration: what one rank can check alone, and how parameters without a unit are grouped.
#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"
#include "sharding/registered.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kGroupBytes = 4 << 20;

bool floating(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

bool overlap(const TensorView& a, const TensorView& b) {
  return a.data != nullptr && b.data != nullptr && a.data < b.data + b.bytes() &&
         b.data < a.data + a.bytes();
}

void require_memory(std::string_view name, std::string_view what, const TensorView& view,
                    const Shape& shape) {
  if (view.shape != shape) {
    throw InvalidArgument(fmt::format("{} of parameter '{}' have shape {}, the parameter {}", what,
                                      name, to_string(view.shape), to_string(shape)));
  }
  if (!view.contiguous())
    throw InvalidArgument(fmt::format("{} of parameter '{}' are not contiguous", what, name));
}

}  // namespace

void ParameterList::require_new(std::string_view name) const {
  if (std::ranges::any_of(entries_, [&](const Entry& e) { return e.parameter.name == name; }))
    throw InvalidArgument(fmt::format("parameter '{}' is registered twice", name));
}

void ParameterList::push(std::string name, const Shape& shape, DType dtype,
                         const ParameterOptions& options) {
  if (name.empty()) throw InvalidArgument("a parameter needs a name");
  if (!floating(dtype)) {
    throw InvalidArgument(
        fmt::format("parameter '{}' is {}; parameters are f32, bf16 or f16", name, name_of(dtype)));
  }
  Entry& entry = entries_.emplace_back();
  entry.parameter.name = std::move(name);
  entry.parameter.shape = shape;
  entry.parameter.dtype = dtype;
  entry.parameter.trainable = options.trainable;
  entry.parameter.decay = options.decay;
  entry.parameter.initializer = options.initial;
  entry.unit = options.unit;
}

void ParameterList::add(std::string name, void* values, void* gradients, const Shape& shape,
                        DType dtype, const ParameterOptions& options) {
  if (values == nullptr && shape.elements() > 0)
    throw InvalidArgument(fmt::format("the values of parameter '{}' are a null pointer", name));
  add(std::move(name), TensorView(values, dtype, shape),
      gradients == nullptr ? TensorView() : TensorView(gradients, dtype, shape), options);
}

void ParameterList::add(std::string name, const TensorView& values, const TensorView& gradients,
                        const ParameterOptions& options) {
  if (values.data == nullptr && values.elements() > 0)
    throw InvalidArgument(fmt::format("the values of parameter '{}' are a null pointer", name));
  require_new(name);
  require_memory(name, "the values", values, values.shape);
  if (gradients.data != nullptr) {
    require_memory(name, "the gradients", gradients, values.shape);
    if (!floating(gradients.dtype))
      throw InvalidArgument(
          fmt::format("the gradients of parameter '{}' are {}", name, name_of(gradients.dtype)));
  }
  for (const Entry& other : entries_) {
    if (overlap(values, other.values)) {
      throw InvalidArgument(
          fmt::format("parameters '{}' and '{}' share memory; register tied weights once",
                      other.parameter.name, name));
    }
  }
  push(std::move(name), values.shape, values.dtype, options);
  entries_.back().values = values;
  if (options.trainable) entries_.back().gradients = gradients;
}

void ParameterList::allocate(std::string name, const Shape& shape, DType dtype,
                             const ParameterOptions& options) {
  require_new(name);
  push(std::move(name), shape, dtype, options);
  entries_.back().owned = true;
}

Registered resolve_units(const ParameterList& list) {
  Registered out;
  if (list.entries().empty()) throw InvalidArgument("no parameter is registered");
  out.owned = list.entries().front().owned;
  std::int64_t group = kGroupBytes;
  std::string name;
  for (const ParameterList::Entry& entry : list.entries()) {
    Parameter parameter = entry.parameter;
    if (entry.owned != out.owned) {
      throw InvalidArgument(fmt::format(
          "parameter '{}' is {}, '{}' is not: add all of them or allocate all of them",
          parameter.name, entry.owned ? "allocated" : "added", out.parameters.front().name));
    }
    const bool grouped = entry.unit.empty();
    if (grouped && group >= kGroupBytes) {
      name = parameter.name;
      group = 0;
    }
    if (grouped) group += parameter.shape.elements() * size_of(parameter.dtype);
    const std::string& unit = grouped ? name : entry.unit;
    const auto found = std::ranges::find(out.units, unit);
    parameter.unit = static_cast<int>(found - out.units.begin());
    if (found == out.units.end()) out.units.push_back(unit);
    out.parameters.push_back(std::move(parameter));
    out.values.push_back(entry.values);
    out.gradients.push_back(entry.gradients);
  }
  return out;
}

}  // namespace ashlar
