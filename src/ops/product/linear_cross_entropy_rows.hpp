// The rows of the language-model head. Inputs x (..., C), weight (V, C), targets i32 (...), and
// dloss, a scalar of the loss's type, for the last two. Attributes "dx" (0 or 1) and "dweight" (the
// DType, -1 for none) say which gradients are outputs, in the order dx, dweight.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar {

extern const OpDef kLinearCrossEntropy;              // -> loss
extern const OpDef kLinearCrossEntropyGradient;      // -> gradients
extern const OpDef kLinearCrossEntropyWithGradient;  // -> loss, gradients

}  // namespace ashlar
