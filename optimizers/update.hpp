// What every update rule shares: the checked arguments of one step, walked segment by segment.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "ashlar/optimizer.hpp"

namespace ashlar::detail {

/// Arrays of one run of elements that share their factors.
struct Run {
  float* master = nullptr;
  void* parameter = nullptr;  // bf16 or f16, or null
  DType parameter_dtype = DType::bf16;
  const void* gradient = nullptr;
  DType gradient_dtype = DType::f32;
  float* first_state = nullptr;
  float* second_state = nullptr;
  std::int64_t count = 0;
};

/// The whole span as one run. @throws InvalidArgument naming the rule and the argument that breaks
/// the contract of Optimizer::step.
Run check_step(std::string_view rule, const TensorView& master, const TensorView& parameter,
               const TensorView& gradient, std::span<const TensorView> state, std::size_t states,
               std::span<const Segment> segments, const StepScalars& scalars);

/// Elements [begin, end) of a run.
Run slice(const Run& run, std::int64_t begin, std::int64_t end);

/// Calls update(run, decay) for each maximal run of adjacent segments of one group.
template <typename Update>
void for_each_group(const Run& all, std::span<const Segment> segments, const Update& update) {
  for (std::size_t i = 0; i < segments.size();) {
    const Segment& first = segments[i];
    std::int64_t end = first.end;
    for (++i; i < segments.size() && segments[i].decay == first.decay; ++i) end = segments[i].end;
    if (end > first.begin) update(slice(all, first.begin, end), first.decay);
  }
}

}  // namespace ashlar::detail
