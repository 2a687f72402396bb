#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "ashlar/category.hpp"
#include "ashlar/error.hpp"
#include "ashlar/tensor_view.hpp"

using namespace ashlar;

namespace {

/// The nearest bf16 by comparing distances in double; ties go to the even mantissa.
std::uint16_t nearest_bf16(float value) {
  const auto below = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
  const auto above = static_cast<std::uint16_t>(below + 1);  // away from zero
  const auto widen = [](std::uint16_t bits) {
    if ((bits & 0x7fff) == 0x7f80) return std::copysign(0x1p128, bits & 0x8000 ? -1.0 : 1.0);
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
  };
  const double to_below = std::abs(static_cast<double>(value) - widen(below));
  const double to_above = std::abs(static_cast<double>(value) - widen(above));
  if (to_below == to_above) return below % 2 == 0 ? below : above;
  return to_below < to_above ? below : above;
}

}  // namespace

TEST_CASE("dtype: names and sizes round-trip, unknown names are refused") {
  const std::array<std::int64_t, 7> sizes{4, 2, 2, 8, 4, 8, 1};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto dtype = static_cast<DType>(i);
    CHECK(size_of(dtype) == sizes[i]);
    CHECK(dtype_from_name(name_of(dtype)) == dtype);
  }
  CHECK(name_of(DType::bf16) == "bf16");
  CHECK_THROWS_WITH_AS(dtype_from_name("f8"),
                       "unknown element type 'f8': use one of f32, bf16, f16, f64, i32, i64, u8",
                       InvalidArgument);
}

TEST_CASE("category: names stand in the order of the enum") {
  CHECK(name_of(Category::parameter) == "parameter");
  CHECK(name_of(Category::gathered_parameter) == "gathered_parameter");
  CHECK(name_of(Category::input) == "input");
}

TEST_CASE("bf16: every value widens and narrows to itself") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    bf16 value;
    value.bits = static_cast<std::uint16_t>(bits);
    const float wide = value;
    if (std::isnan(wide))
      REQUIRE(std::isnan(static_cast<float>(bf16(wide))));
    else
      REQUIRE(bf16(wide).bits == bits);
  }
}

TEST_CASE("bf16: rounds to nearest even between all neighbours") {
  const std::array<std::uint32_t, 8> lower{0, 1, 0x1234, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper) {
    if ((upper & 0x7f80) == 0x7f80) continue;  // infinities and NaN
    for (const std::uint32_t low : lower) {
      const auto value = std::bit_cast<float>((upper << 16) | low);
      REQUIRE(bf16(value).bits == nearest_bf16(value));
    }
  }
  for (std::uint32_t low = 0; low < 0x10000; ++low) {
    for (const std::uint32_t upper : {0x3f80U, 0xbf81U, 0x0000U, 0x7f7fU}) {
      const auto value = std::bit_cast<float>((upper << 16) | low);
      REQUIRE(bf16(value).bits == nearest_bf16(value));
    }
  }
}

TEST_CASE("bf16: NaN stays NaN with its sign, infinity stays, the largest floats overflow") {
  for (const std::uint32_t word : {0x7f800001U, 0xff800001U, 0x7fffffffU, 0xffc00000U}) {
    const bf16 narrow(std::bit_cast<float>(word));
    CHECK(std::isnan(static_cast<float>(narrow)));
    CHECK((narrow.bits >> 15) == (word >> 31));
  }
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  CHECK(static_cast<float>(bf16(-kInfinity)) == -kInfinity);
  CHECK(static_cast<float>(bf16(std::numeric_limits<float>::max())) == kInfinity);
}

TEST_CASE("f16: every value widens and narrows to itself") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto value = std::bit_cast<f16>(static_cast<std::uint16_t>(bits));
    const float wide = value;
    if (!std::isnan(wide)) REQUIRE(std::bit_cast<std::uint16_t>(f16(wide)) == bits);
  }
}

TEST_CASE("shape: extents, elements, text") {
  const Shape shape{4, 256, 768};
  CHECK(shape.rank() == 3);
  CHECK(shape[0] == 4);
  CHECK(shape[-1] == 768);
  CHECK(shape.elements() == 4 * 256 * 768);
  CHECK(to_string(shape) == "[4, 256, 768]");
  CHECK(to_string(Shape{}) == "[]");
  CHECK(Shape{}.elements() == 1);
  CHECK(Shape{3, 0, 5}.elements() == 0);
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK_FALSE(Shape{2, 3} == Shape{2, 3, 1});
  CHECK(Shape{1 << 20, 1 << 20}.elements() == std::int64_t{1} << 40);
  CHECK_THROWS_AS(Shape(std::vector<std::int64_t>(9, 1)), InvalidArgument);
}

TEST_CASE("shape: contiguous strides address row-major order") {
  const Shape shape{3, 4, 5};
  const Shape strides = contiguous_strides(shape);
  std::int64_t next = 0;
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < 4; ++j)
      for (std::int64_t k = 0; k < 5; ++k)
        REQUIRE(i * strides[0] + j * strides[1] + k * strides[2] == next++);
}

TEST_CASE("tensor_view: contiguity ignores the strides of axes of extent 1 and of empty views") {
  std::array<float, 24> memory{};
  CHECK(TensorView(memory.data(), DType::f32, {2, 3, 4}).contiguous());
  CHECK(TensorView(memory.data(), DType::f32, {2, 1, 12}, {12, 99, 1}).contiguous());
  CHECK(TensorView(memory.data(), DType::f32, {0, 3}, {7, 9}).contiguous());
  CHECK_FALSE(TensorView(memory.data(), DType::f32, {4, 6}, {1, 4}).contiguous());
  CHECK_FALSE(TensorView(memory.data(), DType::f32, {2, 3}, {4, 1}).contiguous());
  const TensorView slice = TensorView(memory.data(), DType::f32, {24}).flat_slice(5, 7);
  CHECK(slice.as<float>() == memory.data() + 5);
  CHECK(slice.bytes() == 28);
}
