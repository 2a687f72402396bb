// Between the types that weights are stored in and the types that training holds them in.
#pragma once

#include "ashlar/tensor_view.hpp"

namespace ashlar {

/// True when convert() can write elements of `from` as `to`: equal types, or both floating.
bool convertible(DType from, DType to);

/// Writes destination.elements() elements at `source` into the contiguous destination. Equal types
/// are copied bit for bit; narrowing goes through f32 and rounds to nearest even. `source` needs no
/// alignment.
void convert(const std::byte* source, DType from, TensorView destination);

}  // namespace ashlar
