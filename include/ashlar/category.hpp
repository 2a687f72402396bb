// What memory is for. Every byte of a step belongs to exactly one category.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ashlar {

enum class Category : std::uint8_t {
  parameter,
  gradient,
  optimizer_state,
  gathered_parameter,
  activation,
  communication,
  workspace,
  input,
};

inline constexpr int kCategories = 8;

/// One number per category, indexed by it.
template <typename T>
using PerCategory = std::array<T, kCategories>;

/// "parameter", "gradient", ... : the keys of every report.
std::string_view name_of(Category category);

}  // namespace ashlar
