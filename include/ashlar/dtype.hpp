// Element types and the two 16-bit floats, which are storage formats: arithmetic happens in float.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace ashlar {

enum class DType : std::uint8_t { f32, bf16, f16, f64, i32, i64, u8 };

/// Bytes of one element.
constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

/// "f32", "bf16", ...
std::string_view name_of(DType dtype);

/// The inverse of name_of. @throws InvalidArgument naming the unknown type.
DType dtype_from_name(std::string_view name);

/// Brain float: the upper half of an IEEE single, rounded to nearest even; NaN stays NaN.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  constexpr explicit bf16(float value) : bits(round(value)) {}
  constexpr operator float() const {  // NOLINT(google-explicit-constructor): widening is exact
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }

 private:
  static constexpr std::uint16_t round(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    if ((word & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((word >> 16) | 0x40U);
    return static_cast<std::uint16_t>((word + 0x7fffU + ((word >> 16) & 1U)) >> 16);
  }
};

/// IEEE half precision, rounded to nearest even.
struct f16 {
  std::uint16_t bits;

  f16() = default;
  constexpr explicit f16(float wide)
      : bits(std::bit_cast<std::uint16_t>(static_cast<_Float16>(wide))) {}
  constexpr operator float() const {  // NOLINT(google-explicit-constructor)
    return static_cast<float>(std::bit_cast<_Float16>(bits));
  }
};

/// The DType of a C++ element type: dtype_of<float> == DType::f32.
template <typename T>
inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "no DType");
  return DType::u8;
}();
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<bf16> = DType::bf16;
template <>
inline constexpr DType dtype_of<f16> = DType::f16;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::i64;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::u8;

}  // namespace ashlar
