// Packing problems for tests and benchmarks: seeded, and equal on every machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "ashlar/memory_plan.hpp"
#include "memory/plan/csv.hpp"

namespace plan_problems {

using Problem = std::vector<ashlar::PlannedBuffer>;

inline std::int64_t uniform(std::mt19937_64& random, std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low + 1));
}

/// Lifetimes anywhere, mostly short; sizes over three orders of magnitude.
inline Problem random_lifetimes(std::size_t buffers, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Problem problem;
  const auto span = static_cast<std::int64_t>(buffers);
  for (std::size_t i = 0; i < buffers; ++i) {
    const std::int64_t longest = std::max<std::int64_t>(span >> uniform(random, 0, 9), 1);
    const std::int64_t lower = uniform(random, 0, span - 1);
    const std::int64_t size = uniform(random, 1, 16) << uniform(random, 0, 6);
    problem.push_back({lower, lower + uniform(random, 1, longest), 256 * size});
  }
  return problem;
}

/// Some 240 in use at any time, uniform in size: the load is highest in a few places by chance.
inline Problem short_lifetimes(std::size_t buffers, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Problem problem;
  const auto span = static_cast<std::int64_t>(buffers) * 5 / 3;
  for (std::size_t i = 0; i < buffers; ++i) {
    const std::int64_t lower = uniform(random, 0, span - 1);
    problem.push_back({lower, lower + uniform(random, 1, 800), 64 * uniform(random, 1, 4096)});
  }
  return problem;
}

/// Forward and backward over layers: activations live from their forward to their backward
/// instruction, temporaries for a few instructions, gradients until their reduction.
inline Problem training_step(std::size_t buffers, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  constexpr std::int64_t kPerLayer = 12;
  const std::int64_t layers =
      std::max<std::int64_t>(static_cast<std::int64_t>(buffers) / (3 * kPerLayer), 1);
  const std::int64_t end = 2 * layers * kPerLayer;
  const std::vector<std::int64_t> widths{512, 768, 1024, 2048, 3072, 4096};
  Problem problem;
  while (problem.size() < buffers) {
    const std::int64_t at = uniform(random, 0, layers * kPerLayer - 1);
    const std::int64_t size =
        512 * widths[static_cast<std::size_t>(uniform(random, 0, 5))] / uniform(random, 1, 4);
    const std::int64_t back = end - 1 - at;
    switch (uniform(random, 0, 3)) {
      case 0:
        problem.push_back({at, back + 1, size});
        break;
      case 1:
        problem.push_back({at, at + uniform(random, 1, 4), size});
        break;
      case 2:
        problem.push_back({back, back + uniform(random, 1, 4), 2 * size});
        break;
      default:
        problem.push_back({back, std::min(back + uniform(random, 1, 2 * kPerLayer), end), size});
    }
  }
  return problem;
}

inline Problem permuted(Problem problem, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (std::size_t i = problem.size(); i > 1; --i) std::swap(problem[i - 1], problem[random() % i]);
  return problem;
}

inline Problem reversed(Problem problem) {
  for (ashlar::PlannedBuffer& b : problem) b = {-b.upper, -b.lower, b.size};
  return problem;
}

/// Time by an affine map, sizes by a factor.
inline Problem rescaled(Problem problem, std::int64_t time, std::int64_t size) {
  for (ashlar::PlannedBuffer& b : problem)
    b = {b.lower * time + 7, b.upper * time + 7, b.size * size};
  return problem;
}

/// minimalloc's problems A to K, or an empty path where they are not.
inline std::filesystem::path minimalloc_folder() {
  const char* set = std::getenv("ASHLAR_DATA_DIR");
  const std::filesystem::path data = set != nullptr ? set : "../shared/data";
  for (const auto& base : {data, std::filesystem::path(ASHLAR_SOURCE_DIR) / data})
    if (std::filesystem::exists(base / "minimalloc")) return base / "minimalloc";
  return {};
}

inline Problem minimalloc(const std::filesystem::path& folder, char name) {
  const std::string file = (folder / (std::string(1, name) + ".1048576.csv")).string();
  std::ifstream in(file);
  return ashlar::plan::read_table(in, file).buffers;
}

}  // namespace plan_problems
