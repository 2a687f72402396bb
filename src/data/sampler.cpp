// Which windows are drawn.
#include <fmt/format.h>

#include <algorithm>

#include "ashlar/data.hpp"
#include "ashlar/error.hpp"
#include "base/math/philox.hpp"

namespace ashlar {
namespace {

constexpr std::uint64_t kStream = 0x73616d706c65;  // apart from all other uses of the seed

/// Of 64 random bits, in [0, bound): the upper half of the 128-bit product.
std::uint64_t scale(std::uint64_t bits, std::uint64_t bound) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((Wide{bits} * bound) >> 64);
}

}  // namespace

void require_window(const TokenSource& source, std::int64_t window) {
  if (source.size() < window)
    throw InvalidArgument(fmt::format(
        "{}: {} tokens found, {} needed (a sequence and the token after it); give more text or a "
        "shorter --seq",
        source.name(), source.size(), window));
}

Sampler::Sampler(const TokenSource& source, std::int64_t window, std::uint64_t seed) : seed_(seed) {
  require_window(source, window);
  starts_ = static_cast<std::uint64_t>(source.size() - window + 1);
}

std::int64_t Sampler::start(std::int64_t step, std::int64_t micro_batch,
                            std::int64_t sample) const {
  const auto step_bits = static_cast<std::uint64_t>(step);
  const auto place =
      static_cast<std::uint64_t>(micro_batch) << 40 ^ static_cast<std::uint64_t>(sample);
  const auto words = philox(place, step_bits ^ kStream << 16, seed_);
  return static_cast<std::int64_t>(scale(std::uint64_t{words[1]} << 32 | words[0], starts_));
}

std::vector<std::int64_t> validation_windows(const TokenSource& source, std::int64_t window,
                                             std::int64_t most) {
  require_window(source, window);
  const std::int64_t stride = std::max<std::int64_t>(window - 1, 1);
  const std::int64_t count = std::min(most, (source.size() - window) / stride + 1);
  const std::int64_t spread = count > 1 ? (source.size() - window) / (count - 1) : 0;
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i < count; ++i) starts.push_back(i * spread);
  return starts;
}

void copy_sequence(const TokenSource& source, std::int64_t begin, std::span<std::int32_t> input,
                   std::span<std::int32_t> target) {
  if (input.size() != target.size())
    throw InvalidArgument(
        fmt::format("input has {} tokens, target {}", input.size(), target.size()));
  source.copy(begin, input);
  source.copy(begin + 1, target);
}

}  // namespace ashlar
