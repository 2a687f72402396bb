// Shapes: construction, equality, strides.
#include "ashlar/shape.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"

namespace ashlar {

Shape::Shape(std::initializer_list<std::int64_t> extents)
    : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}

Shape::Shape(std::span<const std::int64_t> extents) : rank_(static_cast<int>(extents.size())) {
  if (extents.size() > kMaxRank)
    throw InvalidArgument(fmt::format("a shape has at most {} axes, not {}: [{}]", kMaxRank,
                                      extents.size(), fmt::join(extents, ", ")));
  std::ranges::copy(extents, extents_.begin());
}

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : extents()) product *= extent;
  return product;
}

bool Shape::operator==(const Shape& other) const {
  return std::ranges::equal(extents(), other.extents());
}

std::string to_string(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape.extents(), ", "));
}

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[axis] = step;
    step *= shape[axis];
  }
  return strides;
}

}  // namespace ashlar
