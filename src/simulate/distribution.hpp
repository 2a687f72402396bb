// Random factors on times: named distributions, drawn the same on every machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/math/philox.hpp"

namespace ashlar::simulate {

/// A factor's distribution; one made by default is always 1. Draws lie within 0.1 and 1000 and are
/// whole multiples of 2^-16: the last bits of a machine's logarithm do not show, and draws that are
/// equal can be told.
class Distribution {
 public:
  Distribution() = default;
  /// "normal:S": mean 1, standard deviation S; "lognormal:S": mean 1, S is the logarithm's;
  /// "uniform:LOW:HIGH"; "exponential:M": 1 and a tail of mean M.
  /// @return nothing for a text that begins with none of these names
  /// @throws InvalidArgument for parameters that are missing or out of range.
  static std::optional<Distribution> parse(std::string_view text);

  bool varies() const { return kind_ != Kind::one; }
  /// One draw from independent words.
  double operator()(const RandomWords& words) const;
  /// No draw is larger.
  double most() const;

 private:
  enum class Kind : std::uint8_t { one, normal, lognormal, uniform, exponential };

  double unbounded(const RandomWords& words) const;

  Kind kind_ = Kind::one;
  double first_ = 0, second_ = 0;  // parameters
};

}  // namespace ashlar::simulate
