#include "simulate/distribution.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "ashlar/error.hpp"
#include "base/parse_number.hpp"
#include "base/printable.hpp"

namespace ashlar::simulate {
namespace {

constexpr double kLeast = 0.1, kMost = 1000;
constexpr double kGrid = 0x1p16;

/// In (0, 1]: its logarithm is finite.
double unit(std::uint32_t word) { return (static_cast<double>(word) + 1) * 0x1p-32; }

std::vector<double> numbers_after(std::string_view text, std::size_t colon) {
  std::vector<double> numbers;
  while (colon != std::string_view::npos) {
    const std::size_t next = text.find(':', colon + 1);
    double number = NAN;
    if (!parse_number(text.substr(colon + 1, next - colon - 1), number)) number = NAN;
    numbers.push_back(number);
    colon = next;
  }
  return numbers;
}

[[noreturn]] void refuse(std::string_view text, const char* wanted) {
  throw InvalidArgument(printable(fmt::format("'{:.60}': give {}", text, wanted)));
}

}  // namespace

std::optional<Distribution> Distribution::parse(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const std::vector<double> given = numbers_after(text, colon);
  const auto within = [&](std::size_t i, double least, double most) {
    return i < given.size() && given[i] >= least && given[i] <= most;
  };
  Distribution result;
  if (name == "normal" || name == "lognormal") {
    result.kind_ = name == "normal" ? Kind::normal : Kind::lognormal;
    if (given.size() != 1 || !within(0, 0, 1))
      refuse(text, name == "normal" ? "normal:S, S from 0 to 1" : "lognormal:S, S from 0 to 1");
  } else if (name == "uniform") {
    result.kind_ = Kind::uniform;
    if (given.size() != 2 || !within(0, kLeast, kMost) || !within(1, given[0], kMost))
      refuse(text, "uniform:LOW:HIGH, both from 0.1 to 1000");
  } else if (name == "exponential") {
    result.kind_ = Kind::exponential;
    if (given.size() != 1 || !within(0, 0, 40)) refuse(text, "exponential:MEAN, from 0 to 40");
  } else {
    return std::nullopt;
  }
  if (result.kind_ != Kind::uniform && given[0] == 0) result.kind_ = Kind::one;
  result.first_ = given[0];
  result.second_ = given.back();
  return result;
}

double Distribution::unbounded(const RandomWords& words) const {
  const auto normal = [&] { return double{normal_pair(words[0], words[1])[0]}; };
  switch (kind_) {
    case Kind::normal:
      return 1 + first_ * normal();
    case Kind::lognormal:
      return std::exp(first_ * (normal() - first_ / 2));
    case Kind::uniform:
      return first_ + (second_ - first_) * unit(words[0]);
    case Kind::exponential:
      return 1 - first_ * std::log(unit(words[0]));
    case Kind::one:
      break;
  }
  return 1;
}

double Distribution::operator()(const RandomWords& words) const {
  return std::clamp(std::round(unbounded(words) * kGrid) / kGrid, kLeast, kMost);
}

double Distribution::most() const {
  const bool upwards = kind_ == Kind::uniform;
  constexpr RandomWords kFirst{0, 0, 0, 0};
  constexpr RandomWords kLast{0xFFFFFFFFU, 0, 0, 0};
  return (*this)(upwards ? kLast : kFirst);
}

}  // namespace ashlar::simulate
