#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <set>

#include "ashlar/error.hpp"
#include "base/parse_number.hpp"
#include "base/printable.hpp"
#include "simulate/simulation.hpp"

namespace ashlar::simulate {
namespace {

bool plausible(double factor) { return factor >= 0.1 && factor <= 1000; }

void append(std::vector<RankClass>& runs, double factor) {
  if (!runs.empty() && runs.back().slowdown == factor) {
    ++runs.back().ranks;
  } else {
    runs.push_back({1, factor});
  }
}

std::vector<RankClass> draw(const Distribution& distribution, int ranks, std::uint64_t seed) {
  constexpr std::uint64_t kStream = ~std::uint64_t{0};  // no class of ranks, whose jitter is theirs
  std::vector<RankClass> runs;
  for (int rank = 0; rank < ranks; ++rank)
    append(runs, distribution(philox(seed, kStream, static_cast<std::uint64_t>(rank))));
  return runs;
}

std::vector<RankClass> read_file(const std::string& path, int ranks) {
  std::ifstream in(path);
  if (!in) {
    throw InvalidArgument(printable(fmt::format(
        "--stragglers {}: neither COUNTxFACTOR, a distribution such as lognormal:0.1, nor a file "
        "({})",
        path, std::strerror(errno))));
  }
  std::vector<RankClass> runs;
  int lines = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.ends_with('\r')) line.pop_back();
    double factor = 0;
    ++lines;
    if (!parse_number(line, factor) || !plausible(factor)) {
      throw InvalidArgument(printable(
          fmt::format("{} line {} is '{:.40}': no factor from 0.1 to 1000", path, lines, line)));
    }
    append(runs, factor);
  }
  if (lines != ranks)
    throw InvalidArgument(printable(fmt::format(
        "{} has {} lines; a factor for each of {} ranks is needed", path, lines, ranks)));
  return runs;
}

}  // namespace

Stragglers::Stragglers(const std::string& text, int ranks, std::uint64_t seed) {
  if (text.empty()) {
    runs_.push_back({ranks, 1});
    return;
  }
  if (const auto distribution = Distribution::parse(text)) {
    runs_ = draw(*distribution, ranks, seed);
    return;
  }
  const std::size_t times = text.find('x');
  int count = 0;
  double factor = 0;
  if (times == std::string::npos || !parse_number(std::string_view(text).substr(0, times), count) ||
      !parse_number(std::string_view(text).substr(times + 1), factor)) {
    runs_ = read_file(text, ranks);
    return;
  }
  if (count < 0 || count > ranks || !plausible(factor)) {
    throw InvalidArgument(fmt::format(
        "--stragglers {}: takes 0 to {} ranks and a factor from 0.1 to 1000", text, ranks));
  }
  if (count < ranks) runs_.push_back({ranks - count, 1});
  if (count > 0) runs_.push_back({count, factor});
}

int Stragglers::class_of(int rank) const {
  std::set<double> factors;
  double own = 1;
  std::int64_t first = 0;
  for (const RankClass& run : runs_) {
    factors.insert(run.slowdown);
    if (rank >= first && rank < first + run.ranks) own = run.slowdown;
    first += run.ranks;
  }
  return static_cast<int>(std::distance(factors.begin(), factors.find(own)));
}

std::vector<RankClass> Stragglers::classes(bool collapse) const {
  std::vector<RankClass> result;
  if (!collapse) {
    for (const RankClass& run : runs_)
      result.insert(result.end(), static_cast<std::size_t>(run.ranks), {1, run.slowdown});
    return result;
  }
  std::map<double, std::int64_t> ranks_of;
  for (const RankClass& run : runs_) ranks_of[run.slowdown] += run.ranks;
  for (const auto& [slowdown, ranks] : ranks_of) result.push_back({ranks, slowdown});
  return result;
}

}  // namespace ashlar::simulate
