// Extents of a tensor, outermost first.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace ashlar {

/// Up to eight extents, in elements; a scalar has none. Value type, no allocation.
class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const { return rank_; }
  /// Extent of an axis; negative axes count from the back.
  std::int64_t operator[](int axis) const { return extents_[index(axis)]; }
  std::int64_t& operator[](int axis) { return extents_[index(axis)]; }
  /// Product of the extents; 1 for a scalar.
  std::int64_t elements() const;
  std::span<const std::int64_t> extents() const {
    return {extents_.data(), static_cast<std::size_t>(rank_)};
  }
  const std::int64_t* begin() const { return extents_.data(); }
  const std::int64_t* end() const { return extents_.data() + rank_; }
  bool operator==(const Shape& other) const;

 private:
  std::size_t index(int axis) const {
    return static_cast<std::size_t>(axis < 0 ? axis + rank_ : axis);
  }

  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

/// "[4, 256, 768]".
std::string to_string(const Shape& shape);

/// Row-major strides, in elements.
Shape contiguous_strides(const Shape& shape);

}  // namespace ashlar
