// Walks tensors through their strides: neighbouring axes that lie regularly in all operands are
// merged, what remains is a list of runs along the innermost axis.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "ashlar/shape.hpp"

namespace ashlar {

/// Merged axes, outermost first, and each operand's stride along them, in elements.
template <int Operands>
struct Loops {
  int rank = 0;
  std::array<std::int64_t, Shape::kMaxRank> extents{};
  std::array<std::array<std::int64_t, Operands>, Shape::kMaxRank> strides{};

  std::int64_t inner() const { return rank == 0 ? 1 : extents[static_cast<std::size_t>(rank - 1)]; }
  const std::array<std::int64_t, Operands>& inner_strides() const {
    return strides[static_cast<std::size_t>(rank - 1)];
  }
};

/// At least one axis, so that a scalar is one run of one element.
template <int Operands>
Loops<Operands> merge_axes(const Shape& shape, const std::array<Shape, Operands>& strides) {
  Loops<Operands> loops;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == 1) continue;
    std::array<std::int64_t, Operands> steps;
    for (std::size_t o = 0; o < Operands; ++o) steps[o] = strides[o][axis];
    const auto last = static_cast<std::size_t>(loops.rank - 1);
    bool merges = loops.rank > 0;
    for (std::size_t o = 0; o < Operands && merges; ++o)
      merges = loops.strides[last][o] == steps[o] * shape[axis];
    if (merges) {
      loops.extents[last] *= shape[axis];
      loops.strides[last] = steps;
    } else {
      loops.extents[static_cast<std::size_t>(loops.rank)] = shape[axis];
      loops.strides[static_cast<std::size_t>(loops.rank)] = steps;
      ++loops.rank;
    }
  }
  if (loops.rank == 0) {
    loops.rank = 1;
    loops.extents[0] = 1;
    loops.strides[0].fill(1);
  }
  return loops;
}

/// Calls body(first, count, offsets) for the runs that make up elements [begin, end) in row-major
/// order; `offsets` are the operands' positions of element `first`.
template <int Operands, class Body>
void for_each_run(const Loops<Operands>& loops, std::int64_t begin, std::int64_t end,
                  const Body& body) {
  const std::int64_t inner = loops.inner();
  for (std::int64_t first = begin; first < end;) {
    const std::int64_t within = first % inner;
    const std::int64_t count = std::min(inner - within, end - first);
    std::array<std::int64_t, Operands> offsets{};
    std::int64_t rest = first;
    for (int axis = loops.rank - 1; axis >= 0; --axis) {
      const auto a = static_cast<std::size_t>(axis);
      const std::int64_t position = rest % loops.extents[a];
      rest /= loops.extents[a];
      for (std::size_t o = 0; o < Operands; ++o) offsets[o] += position * loops.strides[a][o];
    }
    body(first, count, offsets);
    first += count;
  }
}

}  // namespace ashlar
