// Sums whose result has another type than what is summed.
#pragma once

#include <cstdint>

#include "ashlar/op.hpp"
#include "ashlar/ops.hpp"

namespace ashlar {

/// ashlar::sum, rounded once to `dtype`. No axes: a cast.
Value sum_as(Value x, std::uint32_t axes, DType dtype, Where where = Where::current());

/// The row: the axes of the mask "axes" are summed, in "dtype".
extern const OpDef kSum;

namespace kernels {
void sum(const KernelArguments& arguments);
}

}  // namespace ashlar
