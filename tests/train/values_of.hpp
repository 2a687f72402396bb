// All parameters of a step as f32, in layout order, on rank 0 (zeros elsewhere). Collective.
#pragma once

#include <vector>

#include "ashlar/train_step.hpp"

namespace ashlar {

inline std::vector<float> values_of(TrainStep& step) {
  std::vector<float> all;
  for (int p = 0; p < static_cast<int>(step.layout().parameters().size()); ++p) {
    const Shape& shape = step.layout().parameters()[static_cast<std::size_t>(p)].shape;
    std::vector<float> values(static_cast<std::size_t>(shape.elements()));
    step.read_parameter(p, {values.data(), DType::f32, shape});
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace ashlar
