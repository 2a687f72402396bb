// How the models of this folder are traced.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/dtype.hpp"

namespace ashlar {

struct ModelTrace {
  std::int64_t batch = 1;
  std::int64_t sequence = 256;
  DType dtype = DType::f32;
  double dropout = 0;  // on the embedding and on both residual branches
  std::vector<std::string>
      frozen;  // parameters whose name contains one of these (or matches with * wildcards)
};

/// True when `name` contains `pattern`, or matches it as a whole where it has a '*' (any run of
/// characters).
bool matches_pattern(std::string_view name, std::string_view pattern);

}  // namespace ashlar
