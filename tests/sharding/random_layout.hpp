// Models with parameters of awkward sizes (empty, 1, prime, large), types and units, drawn from a
// seed.
#pragma once

#include <array>
#include <random>
#include <string>
#include <vector>

#include "ashlar/sharding.hpp"

namespace ashlar::test {

struct RandomModel {
  std::vector<Parameter> parameters;
  std::vector<std::string> units;

  explicit RandomModel(unsigned seed) {
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    const int unit_count = 1 + below(4);
    for (int u = 0; u < unit_count; ++u) units.push_back("unit." + std::to_string(u));
    static constexpr std::array<std::int64_t, 10> kExtents{0, 1, 2, 7, 31, 32, 33, 127, 128, 509};
    const int count = 1 + below(12);
    for (int p = 0; p < count; ++p) {
      Parameter parameter;
      parameter.name = "p." + std::to_string(p);
      parameter.shape = below(3) == 0
                            ? Shape{1 + below(5), kExtents[static_cast<std::size_t>(below(10))]}
                            : Shape{kExtents[static_cast<std::size_t>(below(10))]};
      parameter.dtype = below(4) == 0 ? DType::bf16 : DType::f32;
      parameter.unit = below(unit_count);
      parameter.trainable = below(5) != 0;
      parameters.push_back(parameter);
    }
  }
};

}  // namespace ashlar::test
