#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "ashlar/error.hpp"
#include "base/parse_number.hpp"
#include "base/printable.hpp"
#include "simulate/simulation.hpp"

namespace ashlar::simulate {
namespace {

bool plausible(double factor) { return factor >= 0.1 && factor <= 1000; }

std::vector<double> draw(const Distribution& distribution, int ranks, std::uint64_t seed) {
  constexpr std::uint64_t kStream = ~std::uint64_t{0};  // no class of ranks, whose jitter is theirs
  std::vector<double> slowdowns;
  for (int rank = 0; rank < ranks; ++rank)
    slowdowns.push_back(distribution(philox(seed, kStream, static_cast<std::uint64_t>(rank))));
  return slowdowns;
}

std::vector<double> read_file(const std::string& path, int ranks) {
  std::ifstream in(path);
  if (!in) {
    throw InvalidArgument(printable(fmt::format(
        "--stragglers {}: neither COUNTxFACTOR, a distribution such as lognormal:0.1, nor a file "
        "({})",
        path, std::strerror(errno))));
  }
  std::vector<double> slowdowns;
  int lines = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.ends_with('\r')) line.pop_back();
    double factor = 0;
    ++lines;
    if (!parse_number(line, factor) || !plausible(factor)) {
      throw InvalidArgument(printable(
          fmt::format("{} line {} is '{:.40}': no factor from 0.1 to 1000", path, lines, line)));
    }
    slowdowns.push_back(factor);
  }
  if (lines != ranks)
    throw InvalidArgument(printable(fmt::format(
        "{} has {} lines; a factor for each of {} ranks is needed", path, lines, ranks)));
  return slowdowns;
}

}  // namespace

Stragglers::Stragglers(const std::string& text, int ranks, std::uint64_t seed) {
  if (text.empty()) {
    slowdowns_.assign(static_cast<std::size_t>(ranks), 1);
    return;
  }
  if (const auto distribution = Distribution::parse(text)) {
    slowdowns_ = draw(*distribution, ranks, seed);
    return;
  }
  const std::size_t times = text.find('x');
  int count = 0;
  double factor = 0;
  if (times == std::string::npos || !parse_number(std::string_view(text).substr(0, times), count) ||
      !parse_number(std::string_view(text).substr(times + 1), factor)) {
    slowdowns_ = read_file(text, ranks);
    return;
  }
  if (count < 0 || count > ranks || !plausible(factor)) {
    throw InvalidArgument(fmt::format(
        "--stragglers {}: takes 0 to {} ranks and a factor from 0.1 to 1000", text, ranks));
  }
  slowdowns_.assign(static_cast<std::size_t>(ranks - count), 1);
  slowdowns_.resize(static_cast<std::size_t>(ranks), factor);
}

RankClasses Stragglers::classes(bool collapse, int group) const {
  return collapse ? ranks_collapsed(slowdowns_, group) : ranks_apart(slowdowns_, group);
}

}  // namespace ashlar::simulate
