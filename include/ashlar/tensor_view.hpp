// A typed, strided window on memory that somebody else owns.
#pragma once

#include <cstddef>
#include <span>

#include "ashlar/dtype.hpp"
#include "ashlar/shape.hpp"

namespace ashlar {

/// Pointer, element type, extents and strides (in elements). Copyable, owns nothing.
struct TensorView {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;
  Shape strides;

  TensorView() = default;
  /// A contiguous view.
  TensorView(void* memory, DType type, const Shape& extents)
      : data(static_cast<std::byte*>(memory)),
        dtype(type),
        shape(extents),
        strides(contiguous_strides(extents)) {}
  TensorView(void* memory, DType type, const Shape& extents, const Shape& steps)
      : data(static_cast<std::byte*>(memory)), dtype(type), shape(extents), strides(steps) {}

  std::int64_t elements() const { return shape.elements(); }
  std::int64_t bytes() const { return elements() * size_of(dtype); }
  bool contiguous() const;

  /// The elements as T. The caller knows the dtype; debug builds check it.
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
  /// A contiguous view's elements.
  template <typename T>
  std::span<T> span() const {
    return {as<T>(), static_cast<std::size_t>(elements())};
  }
  /// Elements [first, first + count) of a contiguous view, one-dimensional.
  TensorView flat_slice(std::int64_t first, std::int64_t count) const {
    return {data + first * size_of(dtype), dtype, {count}};
  }
};

}  // namespace ashlar
