// The backward of gelu and of the bias before it, in one pass over memory.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar {

/// Rows whose columns are summed together.
inline constexpr std::int64_t kGeluBlockRows = 32;

/// Inputs h (..., N) and dy, outputs dh = gelu'(h) dy (may be dy's memory) and its column sums (N)
/// in the type of that output. Sums are of the rounded dh, by fixed blocks of rows.
void gelu_columns_backward(const KernelArguments& arguments);

/// Scratch of gelu_columns_backward: one row of sums per block of rows.
std::int64_t gelu_columns_workspace(std::int64_t rows, std::int64_t columns, DType dtype);

}  // namespace ashlar
