// Rows of products that backward and the passes over it name.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar {

extern const OpDef kMatmul;

/// x (M, K), dy (M, N) -> x^T dy (K, N) in "dtype" and the column sums of dy (N) in "bias_dtype":
/// the gradients of a linear layer's weight and bias. "axes" is 1, for the sum.
extern const OpDef kLinearWeightGradient;
/// h (..., N), dy -> dh = gelu'(h) dy and its column sums (N) in "dtype".
extern const OpDef kGeluColumnsBackward;
/// dy (M, K), weight (N, K), h (M, N) -> gelu_columns_backward of h and dy weight^T.
extern const OpDef kLinearGeluBackward;

}  // namespace ashlar
