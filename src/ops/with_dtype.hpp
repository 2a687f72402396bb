// From a run-time element type to a template parameter.
#pragma once

#include "ashlar/dtype.hpp"
#include "ashlar/error.hpp"

namespace ashlar {

template <typename T>
struct TypeTag {
  using type = T;
};

/// Calls f(TypeTag<float | bf16 | double>{}); f is always inlined into the caller's instruction set
/// when it is a lambda written there.
template <class F>
__attribute__((always_inline)) inline void with_float(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(TypeTag<float>{});
    case DType::bf16:
      return f(TypeTag<bf16>{});
    case DType::f64:
      return f(TypeTag<double>{});
    default:
      throw Error("a kernel was given an element type that it has no code for");
  }
}

}  // namespace ashlar
