// Which files, or which part of the only one, are held out.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ashlar/error.hpp"
#include "base/math/philox.hpp"
#include "data/file_source.hpp"

namespace ashlar::detail {
namespace {

/// The bytes of the path, eight at a time, each block keyed into the next.
std::uint64_t hash(std::string_view text, std::uint64_t seed) {
  std::uint64_t state = seed;
  for (std::size_t i = 0; i <= text.size(); i += 8) {
    std::uint64_t block = 0;
    for (std::size_t j = i; j < std::min(i + 8, text.size()); ++j)
      block = block << 8 | static_cast<unsigned char>(text[j]);
    const auto words = philox(block, text.size(), state);
    state = std::uint64_t{words[1]} << 32 | words[0];
  }
  return state;
}

/// Marks files in the order of their hashes as long as that brings the sum closer to the target.
std::vector<bool> choose(std::span<const TokenFile> files, const Holdout& holdout, double target) {
  std::vector<std::size_t> order(files.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {},
                           [&](std::size_t i) { return hash(files[i].relative, holdout.seed); });
  std::vector<bool> held(files.size());
  double sum = 0;
  std::size_t count = 0;
  for (const std::size_t i : order) {
    const auto tokens = static_cast<double>(files[i].tokens);
    if (count + 1 == files.size() || std::abs(sum + tokens - target) >= std::abs(sum - target))
      continue;
    held[i] = true;
    sum += tokens;
    ++count;
  }
  if (count == 0)
    held[*std::ranges::min_element(order, {}, [&](auto i) { return files[i].tokens; })] = true;
  return held;
}

Corpus divide_tail(TokenFile file, double fraction, std::int64_t vocabulary) {
  const auto tail =
      static_cast<std::int64_t>(std::llround(fraction * static_cast<double>(file.tokens)));
  if (tail == 0 || tail == file.tokens)
    throw InvalidArgument(fmt::format(
        "{}: {} tokens are too few to hold {} of them out; give more text or --validation 0",
        file.path, file.tokens, fraction));
  TokenFile validation = file;
  file.tokens -= tail;
  validation.offset_bytes += file.tokens * file.width;
  validation.tokens = tail;
  validation.path += " (its validation tail)";
  return {concatenate({std::move(file)}, vocabulary),
          concatenate({std::move(validation)}, vocabulary)};
}

}  // namespace

Corpus divide(std::vector<TokenFile> files, const Holdout& holdout, std::int64_t vocabulary) {
  if (!(holdout.fraction >= 0 && holdout.fraction < 1))
    throw InvalidArgument(
        fmt::format("a validation fraction of {} is not in [0, 1)", holdout.fraction));
  if (holdout.fraction == 0) return {concatenate(std::move(files), vocabulary), nullptr};
  if (files.size() == 1) return divide_tail(std::move(files[0]), holdout.fraction, vocabulary);

  const auto total = std::accumulate(files.begin(), files.end(), 0.0, [](double sum, auto& file) {
    return sum + static_cast<double>(file.tokens);
  });
  const std::vector<bool> held = choose(files, holdout, holdout.fraction * total);
  std::vector<TokenFile> train;
  std::vector<TokenFile> validation;
  for (std::size_t i = 0; i < files.size(); ++i)
    (held[i] ? validation : train).push_back(std::move(files[i]));
  return {concatenate(std::move(train), vocabulary),
          concatenate(std::move(validation), vocabulary)};
}

}  // namespace ashlar::detail
