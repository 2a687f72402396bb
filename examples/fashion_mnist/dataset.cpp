#include "fashion_mnist/dataset.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ashlar/error.hpp"

namespace vision {
namespace {

using ashlar::InvalidArgument;

constexpr float kMean = 0.2860F, kDeviation = 0.3530F;  // of the training images, in [0, 1]

/// The finaliser of SplitMix64 (Steele et al., 2014).
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

}  // namespace

Split::Split(const std::filesystem::path& folder, const char* prefix,
             const std::filesystem::path& cache)
    : images_(folder / fmt::format("{}-images-idx3-ubyte", prefix), 3, cache),
      labels_(folder / fmt::format("{}-labels-idx1-ubyte", prefix), 1, cache) {
  const auto refuse = [&](const std::string& why) {
    throw InvalidArgument(fmt::format("'{}', {}: {}", folder.string(), prefix, why));
  };
  if (images_.extent(0) != labels_.extent(0))
    refuse(fmt::format("{} images, but {} labels", images_.extent(0), labels_.extent(0)));
  if (images_.extent(1) != kSide || images_.extent(2) != kSide)
    refuse(
        fmt::format("images of {} x {} pixels, not 28 x 28", images_.extent(1), images_.extent(2)));
  const auto labels = labels_.values();
  const auto wrong = std::ranges::find_if(labels, [](std::uint8_t l) { return l >= kClasses; });
  if (wrong != labels.end())
    refuse(fmt::format("label {} is {}, not below {}", wrong - labels.begin(), *wrong, kClasses));
}

void Split::image(std::int64_t i, float* values) const {
  const auto pixels = images_.values().subspan(static_cast<std::size_t>(i * kSide * kSide),
                                               static_cast<std::size_t>(kSide * kSide));
  std::ranges::transform(pixels, values, [](std::uint8_t pixel) {
    return (static_cast<float>(pixel) / 255 - kMean) / kDeviation;
  });
}

/// A Feistel network of four rounds over the next power of four, walked until it lands below size.
std::int64_t shuffled(std::int64_t i, std::int64_t size, std::uint64_t seed) {
  const auto epoch = static_cast<std::uint64_t>(i / size);
  int half = 1;
  while ((std::int64_t{1} << (2 * half)) < size) ++half;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  auto place = static_cast<std::uint64_t>(i % size);
  do {
    std::uint64_t left = place >> half, right = place & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t key = mix(mix(mix(seed + 1) + epoch) + round);
      left = std::exchange(right, left ^ (mix(key + right) & mask));
    }
    place = left << half | right;
  } while (place >= static_cast<std::uint64_t>(size));
  return static_cast<std::int64_t>(place);
}

std::int64_t count_correct(const ashlar::TensorView& logits, const Split& split, std::int64_t first,
                           std::int64_t count) {
  std::int64_t correct = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float* row = logits.as<float>() + i * kClasses;
    correct += std::max_element(row, row + kClasses) - row == split.label(first + i) ? 1 : 0;
  }
  return correct;
}

}  // namespace vision
