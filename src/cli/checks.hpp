// Checks of numbers for CLI11, whose own take NaN and print bounds of 300 digits.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>

#include "base/parse_number.hpp"

namespace ashlar::cli {

template <typename Number>
bool is_at_least(const std::string& text, Number least) {
  Number value{};
  return parse_number(text, value) && value >= least;
}

inline auto whole_number(std::int64_t least) {
  return [least](const std::string& text) {
    if (is_at_least(text, least)) return std::string();
    return fmt::format("'{}' is not a whole number of {} or more", text, least);
  };
}

inline std::string seconds(const std::string& text) {
  return is_at_least(text, 0.0) ? "" : fmt::format("'{}' is not a number of seconds", text);
}

}  // namespace ashlar::cli
