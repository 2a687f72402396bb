// Sizes in bytes as people read and write them.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"

namespace ashlar {
namespace {

constexpr std::array<std::string_view, 7> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

[[noreturn]] void reject(std::string_view text, std::string_view why) {
  throw InvalidArgument(
      fmt::format("'{}' is not a size in bytes ({}): write 123, 4KiB, 1.5MiB or 2GiB", text, why));
}

int exponent_of(std::string_view text, std::string_view suffix) {
  if (suffix.empty()) return 0;
  for (std::size_t i = 0; i < kUnits.size(); ++i)
    if (kUnits[i] == suffix) return static_cast<int>(10 * i);
  reject(text, fmt::format("unknown unit '{}'", suffix));
}

}  // namespace

std::string format_bytes(std::int64_t bytes) {
  const double magnitude = std::abs(static_cast<double>(bytes));
  std::size_t unit = 0;
  while (unit + 1 < kUnits.size() && std::ldexp(magnitude, -10 * static_cast<int>(unit)) >= 1024)
    ++unit;
  if (unit == 0) return fmt::format("{} B", bytes);
  return fmt::format("{:.2f} {}",
                     std::ldexp(static_cast<double>(bytes), -10 * static_cast<int>(unit)),
                     kUnits[unit]);
}

std::int64_t parse_bytes(std::string_view text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string_view number = text.substr(0, digits);
  std::string_view suffix = text.substr(digits);
  if (suffix.starts_with(' ')) suffix.remove_prefix(1);
  const int exponent = exponent_of(text, suffix);
  const char* begin = std::to_address(number.begin());
  const char* end = std::to_address(number.end());

  std::int64_t whole = 0;
  if (const auto [stop, error] = std::from_chars(begin, end, whole);
      error == std::errc() && stop == end) {
    if (whole > (INT64_MAX >> exponent)) reject(text, "too large");
    return whole << exponent;
  }
  double fraction = 0;
  const auto [stop, error] = std::from_chars(begin, end, fraction);
  if (error != std::errc() || stop != end) reject(text, "no number");
  const double bytes = std::ldexp(fraction, exponent);
  if (bytes >= 0x1p63) reject(text, "too large");
  return std::llround(bytes);
}

std::string describe(const PerCategory<std::int64_t>& bytes) {
  std::vector<std::pair<std::int64_t, Category>> holders;
  for (int i = 0; i < kCategories; ++i)
    if (bytes[static_cast<std::size_t>(i)] != 0)
      holders.emplace_back(bytes[static_cast<std::size_t>(i)], static_cast<Category>(i));
  if (holders.empty()) return "nothing";
  std::ranges::stable_sort(holders, std::greater<>{}, &std::pair<std::int64_t, Category>::first);
  std::string text;
  for (const auto& [held, category] : holders)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name_of(category), format_bytes(held));
  return text;
}

}  // namespace ashlar
