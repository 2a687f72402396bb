// Element-wise conversion of floating types.
#include "sharding/convert.hpp"

#include <fmt/format.h>

#include <cstring>

#include "ashlar/error.hpp"

namespace ashlar {
namespace {

template <typename From, typename To>
void convert_as(const std::byte* source, std::span<To> destination) {
  for (To& element : destination) {
    From value;
    std::memcpy(&value, source, sizeof(From));
    element = To(static_cast<float>(value));
    source += sizeof(From);
  }
}

template <typename From>
void convert_from(const std::byte* source, TensorView destination) {
  switch (destination.dtype) {
    case DType::f32:
      return convert_as<From>(source, destination.span<float>());
    case DType::bf16:
      return convert_as<From>(source, destination.span<bf16>());
    case DType::f16:
      return convert_as<From>(source, destination.span<f16>());
    default:
      return convert_as<From>(source, destination.span<double>());
  }
}

bool floating(DType dtype) { return dtype <= DType::f64; }

}  // namespace

bool convertible(DType from, DType to) { return from == to || (floating(from) && floating(to)); }

void convert(const std::byte* source, DType from, TensorView destination) {
  if (!convertible(from, destination.dtype))
    throw InvalidArgument(
        fmt::format("cannot convert {} to {}", name_of(from), name_of(destination.dtype)));
  if (destination.elements() == 0) return;
  if (from == destination.dtype) {
    std::memcpy(destination.data, source, static_cast<std::size_t>(destination.bytes()));
    return;
  }
  switch (from) {
    case DType::f32:
      return convert_from<float>(source, destination);
    case DType::bf16:
      return convert_from<bf16>(source, destination);
    case DType::f16:
      return convert_from<f16>(source, destination);
    default:
      return convert_from<double>(source, destination);
  }
}

}  // namespace ashlar
