// First values of parameters, any part of them at a time, so that no rank ever holds a whole model.
#pragma once

#include <cstdint>

#include "ashlar/sharding.hpp"
#include "ashlar/tensor_view.hpp"

namespace ashlar {

/// Writes elements [first, first + n) of the parameter's initial values into `part` ([n],
/// contiguous; f32, or bf16 and f16 holding the rounded f32 value; f64 holding it widened). The
/// values depend only on the parameter's name and initializer, the seed and the element's index:
/// the same bits whatever the split, rank or stage. Normal values come from Philox4x32-10, key =
/// hash(seed, name), counter = index / 4, by the transform of Box and Muller ("A note on the
/// generation of random normal deviates", 1958).
/// @throws InvalidArgument naming the parameter when the range exceeds it or `part` has an integer
/// type.
void initialize(const Parameter& parameter, std::uint64_t seed, std::int64_t first,
                TensorView part);

}  // namespace ashlar
