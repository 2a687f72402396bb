// Names of element types.
#include "ashlar/dtype.hpp"

#include <fmt/format.h>

#include <array>
#include <string>

#include "ashlar/error.hpp"

namespace ashlar {
namespace {

constexpr std::array<std::string_view, 7> kNames{"f32", "bf16", "f16", "f64", "i32", "i64", "u8"};

}  // namespace

std::string_view name_of(DType dtype) { return kNames.at(static_cast<std::size_t>(dtype)); }

DType dtype_from_name(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<DType>(i);
  throw InvalidArgument(
      fmt::format("unknown element type '{}': use one of {}", name, fmt::join(kNames, ", ")));
}

}  // namespace ashlar
