// Elements of a view of any type, as doubles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ashlar/tensor_view.hpp"

namespace ashlar::test {

/// The i-th in memory order.
inline double element(const TensorView& view, std::int64_t i) {
  switch (view.dtype) {
    case DType::f32:
      return view.as<float>()[i];
    case DType::bf16:
      return view.as<bf16>()[i];
    case DType::f16:
      return view.as<f16>()[i];
    case DType::f64:
      return view.as<double>()[i];
    case DType::i32:
      return view.as<std::int32_t>()[i];
    case DType::i64:
      return static_cast<double>(view.as<std::int64_t>()[i]);
    default:
      return view.as<std::uint8_t>()[i];
  }
}

/// Narrow floats are rounded from f32, integers cut.
inline void set_element(const TensorView& view, std::int64_t i, double value) {
  switch (view.dtype) {
    case DType::f32:
      view.as<float>()[i] = static_cast<float>(value);
      return;
    case DType::bf16:
      view.as<bf16>()[i] = bf16(static_cast<float>(value));
      return;
    case DType::f16:
      view.as<f16>()[i] = f16(static_cast<float>(value));
      return;
    case DType::f64:
      view.as<double>()[i] = value;
      return;
    case DType::i32:
      view.as<std::int32_t>()[i] = static_cast<std::int32_t>(value);
      return;
    case DType::i64:
      view.as<std::int64_t>()[i] = static_cast<std::int64_t>(value);
      return;
    default:
      view.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(value);
  }
}

}  // namespace ashlar::test
