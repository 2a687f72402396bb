// Small helpers of the shape rules and vjp rules.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

#include "ashlar/error.hpp"
#include "ashlar/op.hpp"
#include "ashlar/ops.hpp"
#include "base/floating.hpp"

namespace ashlar {

/// @throws InvalidArgument with the message unless `holds`.
template <typename... Arguments>
void require(bool holds, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  if (!holds) throw InvalidArgument(fmt::format(format, std::forward<Arguments>(arguments)...));
}

inline void require_float(const TensorType& type) {
  require(is_float(type.dtype), "computes in floating-point numbers, not in {}",
          name_of(type.dtype));
}

/// "f32[4, 256]".
inline std::string describe(const TensorType& type) {
  return fmt::format("{}{}", name_of(type.dtype), to_string(type.shape));
}

/// The type that sums, means and other statistics of `dtype` are kept in: f64 for f64, else f32.
inline DType statistics_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

/// Rows of a tensor seen as (rows, last axis).
inline std::int64_t rows_of(const Shape& shape) {
  std::int64_t rows = 1;
  for (int axis = 0; axis + 1 < shape.rank(); ++axis) rows *= shape[axis];
  return rows;
}

inline DType dtype_attribute(const Attributes& attributes) {
  return static_cast<DType>(attributes.integer("dtype"));
}

/// Bytes of all inputs and outputs, and `flops_per_element` of the first output.
inline Cost memory_cost(const OpShapes& shapes, double flops_per_element) {
  Cost cost;
  for (const TensorType& type : shapes.inputs) cost.bytes_read += static_cast<double>(type.bytes());
  for (const TensorType& type : shapes.outputs)
    cost.bytes_written += static_cast<double>(type.bytes());
  cost.flops = flops_per_element * static_cast<double>(shapes.outputs[0].elements());
  return cost;
}

}  // namespace ashlar
