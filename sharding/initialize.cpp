// Counter-based normal values: a block of four per Philox call.
#include "sharding/initialize.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "ashlar/error.hpp"
#include "base/hash.hpp"
#include "base/math/philox.hpp"

namespace ashlar {
namespace {

/// FNV-1a of the name, mixed with the seed by the finaliser of SplitMix64.
std::uint64_t key_of(std::uint64_t seed, std::string_view name) {
  std::uint64_t hash = fnv1a64(name) + (seed + 1) * 0x9e3779b97f4a7c15U;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9U;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebU;
  return hash ^ (hash >> 31);
}

/// In double: the float that results is then the same whatever the last bits of log and cos.
std::array<double, 4> normals(std::uint64_t block, std::uint64_t key) {
  const auto words = philox(block, 0, key);
  const auto uniform = [&](std::size_t i) { return (words[i] + 0.5) * 0x1p-32; };  // in (0, 1)
  std::array<double, 4> values;
  for (std::size_t i = 0; i < 4; i += 2) {
    const double radius = std::sqrt(-2 * std::log(uniform(i)));
    const double angle = 2 * std::numbers::pi * uniform(i + 1);
    values[i] = radius * std::cos(angle);
    values[i + 1] = radius * std::sin(angle);
  }
  return values;
}

template <typename T>
void fill(const Initializer& initializer, std::uint64_t key, std::int64_t first,
          std::span<T> part) {
  const auto round = [](double value) { return T(static_cast<float>(value)); };
  if (initializer.kind == Initializer::Kind::constant) {
    std::ranges::fill(part, round(initializer.value));
    return;
  }
  const auto end = static_cast<std::uint64_t>(first) + part.size();
  for (auto i = static_cast<std::uint64_t>(first); i < end;) {
    const auto block = normals(i / 4, key);
    for (const std::uint64_t stop = std::min(end, (i / 4 + 1) * 4); i < stop; ++i)
      part[i - static_cast<std::uint64_t>(first)] = round(block[i % 4] * initializer.value);
  }
}

}  // namespace

void initialize(const Parameter& parameter, std::uint64_t seed, std::int64_t first,
                TensorView part) {
  const std::int64_t count = part.elements();
  if (first < 0 || count > parameter.shape.elements() - first)
    throw InvalidArgument(fmt::format("initialize: parameter '{}' has no elements [{}, {})",
                                      parameter.name, first, first + count));
  const std::uint64_t key = key_of(seed, parameter.name);
  switch (part.dtype) {
    case DType::f32:
      return fill(parameter.initializer, key, first, part.span<float>());
    case DType::bf16:
      return fill(parameter.initializer, key, first, part.span<bf16>());
    case DType::f16:
      return fill(parameter.initializer, key, first, part.span<f16>());
    case DType::f64:
      return fill(parameter.initializer, key, first, part.span<double>());
    default:
      throw InvalidArgument(fmt::format("initialize: parameter '{}' cannot be drawn as {}",
                                        parameter.name, name_of(part.dtype)));
  }
}

}  // namespace ashlar
