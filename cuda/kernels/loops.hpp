// Positions of an element in operands that are walked through their strides.
#pragma once

#include <array>

#include "cuda/device.h"
#include "ops/strided.hpp"

namespace ashlar::cuda {

/// Where element `element`, in row-major order, lies in each operand.
template <int Operands>
__device__ inline std::array<std::int64_t, Operands> positions_of(const Loops<Operands>& loops,
                                                                  std::int64_t element) {
  std::array<std::int64_t, Operands> at{};
  for (int axis = loops.rank - 1; axis >= 0; --axis) {
    const auto k = static_cast<std::size_t>(axis);
    const std::int64_t position = axis == 0 ? element : element % loops.extents[k];
    if (axis > 0) element /= loops.extents[k];
    for (std::size_t o = 0; o < Operands; ++o) at[o] += position * loops.strides[k][o];
  }
  return at;
}

}  // namespace ashlar::cuda
