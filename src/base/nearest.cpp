#include "base/nearest.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace ashlar {

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<int>> distance(a.size() + 1, std::vector<int>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      int& here = distance[i][j];
      if (i == 0 || j == 0) {
        here = static_cast<int>(i + j);
        continue;
      }
      here = std::min({distance[i - 1][j] + 1, distance[i][j - 1] + 1,
                       distance[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        here = std::min(here, distance[i - 2][j - 2] + 1);
    }
  return distance[a.size()][b.size()];
}

std::string suggestion(std::string_view name, std::span<const std::string> names) {
  const int reach = std::max(1, static_cast<int>(name.size()) / 3);
  std::vector<std::pair<int, std::string>> near;
  for (const std::string& candidate : names) {
    const int distance = edit_distance(name, candidate);
    const bool prefix = name.size() > 3 && candidate.starts_with(name);
    if (distance <= reach || prefix) near.emplace_back(prefix ? 0 : distance, candidate);
  }
  if (near.empty()) return fmt::format("one of: {}", fmt::join(names, ", "));
  std::ranges::stable_sort(near, {}, &std::pair<int, std::string>::first);
  near.resize(std::min<std::size_t>(near.size(), 3));
  std::string text = "did you mean ";
  for (std::size_t i = 0; i < near.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == near.size() ? " or " : ", ", near[i].second);
  return text + "?";
}

}  // namespace ashlar
