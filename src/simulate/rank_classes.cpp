#include "simulate/rank_classes.hpp"

#include <algorithm>
#include <array>

namespace ashlar::simulate {
namespace {

constexpr int kMostRounds = 32;

using Colors = std::vector<int>;  // by rank, from 0

/// Equal keys get equal numbers, from 0 in the order of keys.
template <typename Key>
Colors numbered(const std::vector<Key>& keys) {
  std::vector<Key> sorted = keys;
  std::ranges::sort(sorted);
  const auto rest = std::ranges::unique(sorted);
  sorted.erase(rest.begin(), rest.end());
  Colors numbers;
  numbers.reserve(keys.size());
  for (const Key& key : keys)
    numbers.push_back(static_cast<int>(std::ranges::lower_bound(sorted, key) - sorted.begin()));
  return numbers;
}

/// The ranks first, first + stride and so on: which colors there are.
Colors colors_among(const Colors& colors, std::size_t first, std::size_t stride,
                    std::size_t count) {
  Colors found;
  for (std::size_t i = 0; i < count; ++i) found.push_back(colors[first + i * stride]);
  std::ranges::sort(found);
  const auto rest = std::ranges::unique(found);
  found.erase(rest.begin(), rest.end());
  return found;
}

/// Groups (or positions) with the same colors get the same number.
Colors alike(const Colors& colors, std::size_t sets, std::size_t first_stride, std::size_t stride) {
  std::vector<Colors> found;
  for (std::size_t s = 0; s < sets; ++s)
    found.push_back(colors_among(colors, s * first_stride, stride, colors.size() / sets));
  return numbered(found);
}

}  // namespace

RankClasses ranks_apart(std::span<const double> slowdowns, int group) {
  const int size = group == 0 ? static_cast<int>(slowdowns.size()) : group;
  const bool grouped = size < static_cast<int>(slowdowns.size());
  RankClasses result;
  for (const double slowdown : slowdowns) {
    const auto rank = static_cast<int>(result.classes.size());
    result.class_of.push_back(rank);
    result.classes.push_back({1, slowdown, grouped ? rank / size : 0, grouped ? rank % size : 0});
  }
  return result;
}

RankClasses ranks_collapsed(std::span<const double> slowdowns, int group) {
  const std::size_t ranks = slowdowns.size();
  const std::size_t size = group == 0 ? ranks : static_cast<std::size_t>(group);
  Colors colors = numbered(std::vector<double>(slowdowns.begin(), slowdowns.end()));
  Colors group_of(ranks / size, 0), position_of(size, 0);
  int known = 0;
  for (int round = 0; size < ranks && known <= std::ranges::max(colors); ++round) {
    if (round == kMostRounds) return ranks_apart(slowdowns, group);
    known = std::ranges::max(colors) + 1;
    group_of = alike(colors, ranks / size, size, 1);
    position_of = alike(colors, size, 1, size);
    std::vector<std::array<int, 3>> keys(ranks);
    for (std::size_t r = 0; r < ranks; ++r)
      keys[r] = {colors[r], group_of[r / size], position_of[r % size]};
    colors = numbered(keys);
  }
  RankClasses result;
  result.classes.resize(static_cast<std::size_t>(std::ranges::max(colors)) + 1, {0, 1});
  for (std::size_t r = 0; r < ranks; ++r) {
    RankClass& c = result.classes[static_cast<std::size_t>(colors[r])];
    const int group_index = size < ranks ? group_of[r / size] : 0;
    const int position = size < ranks ? position_of[r % size] : 0;
    c = {c.ranks + 1, slowdowns[r], group_index, position};
  }
  result.class_of = std::move(colors);
  return result;
}

}  // namespace ashlar::simulate
