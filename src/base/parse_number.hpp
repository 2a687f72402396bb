// Numbers that must be all of a text.
#pragma once

#include <charconv>
#include <string_view>

namespace ashlar {

/// @return false when anything but one number in range stands there; `number` is then unspecified
template <typename Number>
bool parse_number(std::string_view text, Number& number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end;
}

}  // namespace ashlar
