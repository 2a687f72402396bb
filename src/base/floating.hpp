// Which element types are numbers with a fraction.
#pragma once

#include "ashlar/dtype.hpp"

namespace ashlar {

constexpr bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f64;
}

}  // namespace ashlar
