// Checks of numbers for CLI11, whose own take NaN and print bounds of 300 digits.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <string>

namespace ashlar::cli {

template <typename Number>
bool is_at_least(const std::string& text, Number least) {
  Number value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end && value >= least;
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
