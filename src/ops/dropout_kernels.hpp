// Dropout with random numbers that are a function of position.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

/// Philox key of an op, and stream of a micro-batch; word e % 4 of block e / 4 decides on element
/// e, counted from the first element of global sample 0.
constexpr std::uint64_t dropout_key(std::uint64_t seed, std::int64_t op_key) {
  return seed ^ (static_cast<std::uint64_t>(op_key) * 0x9E3779B97F4A7C15U);
}
constexpr std::uint64_t dropout_stream(std::int64_t step, std::int64_t micro_batch) {
  return static_cast<std::uint64_t>(step) << 24 ^ static_cast<std::uint64_t>(micro_batch);
}

void dropout(const KernelArguments& arguments);

}  // namespace ashlar::kernels
