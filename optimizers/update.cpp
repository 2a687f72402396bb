#include "optimizers/update.hpp"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "ashlar/error.hpp"

namespace ashlar::detail {
namespace {

/// Formats only what is thrown: a step allocates nothing.
template <typename... Arguments>
void require(bool holds, std::string_view rule, fmt::format_string<Arguments...> message,
             Arguments&&... arguments) {
  if (holds) return;
  const std::string text = fmt::format(message, std::forward<Arguments>(arguments)...);
  throw InvalidArgument(fmt::format("{} step: {}", rule, text));
}

void check_view(std::string_view rule, std::string_view what, const TensorView& view,
                std::int64_t elements, bool wide, bool narrow) {
  const bool type_fits = (wide && view.dtype == DType::f32) ||
                         (narrow && (view.dtype == DType::bf16 || view.dtype == DType::f16));
  require(type_fits, rule, "{} has element type {}", what, name_of(view.dtype));
  require(view.elements() == elements, rule, "{} has {} elements, the master {}", what,
          view.elements(), elements);
  require(view.contiguous(), rule, "{} is not contiguous", what);
  require(view.data != nullptr || elements == 0, rule, "{} has no memory", what);
}

void check_segments(std::string_view rule, std::span<const Segment> segments,
                    std::int64_t elements) {
  std::int64_t covered = 0;
  for (const Segment& segment : segments) {
    require(segment.begin == covered && segment.end >= segment.begin, rule,
            "segment [{}, {}) does not continue at element {}", segment.begin, segment.end,
            covered);
    covered = segment.end;
  }
  require(covered == elements, rule, "the segments cover {} of {} elements", covered, elements);
}

void* at(void* array, std::int64_t element, DType dtype) {
  return array == nullptr ? nullptr : static_cast<std::byte*>(array) + element * size_of(dtype);
}

float* at(float* array, std::int64_t element) {
  return array == nullptr ? nullptr : array + element;
}

}  // namespace

Run check_step(std::string_view rule, const TensorView& master, const TensorView& parameter,
               const TensorView& gradient, std::span<const TensorView> state, std::size_t states,
               std::span<const Segment> segments, const StepScalars& scalars) {
  const std::int64_t elements = master.elements();
  check_view(rule, "the master", master, elements, true, false);
  if (parameter.data != nullptr)
    check_view(rule, "the parameter", parameter, elements, false, true);
  check_view(rule, "the gradient", gradient, elements, true, true);
  require(state.size() == states, rule, "{} states were given, the rule keeps {}", state.size(),
          states);
  for (const TensorView& view : state) check_view(rule, "a state", view, elements, true, false);
  check_segments(rule, segments, elements);
  require(scalars.step >= 1, rule, "step {} is not 1 or more", scalars.step);
  require(std::isfinite(scalars.learning_rate) && std::isfinite(scalars.gradient_scale), rule,
          "learning rate {} or gradient scale {} is not finite", scalars.learning_rate,
          scalars.gradient_scale);
  return {.master = master.as<float>(),
          .parameter = parameter.data,
          .parameter_dtype = parameter.dtype,
          .gradient = gradient.data,
          .gradient_dtype = gradient.dtype,
          .first_state = states > 0 ? state[0].as<float>() : nullptr,
          .second_state = states > 1 ? state[1].as<float>() : nullptr,
          .count = elements};
}

Run slice(const Run& run, std::int64_t begin, std::int64_t end) {
  Run part = run;
  part.master = at(run.master, begin);
  part.parameter = at(run.parameter, begin, run.parameter_dtype);
  part.gradient = at(const_cast<void*>(run.gradient), begin, run.gradient_dtype);
  part.first_state = at(run.first_state, begin);
  part.second_state = at(run.second_state, begin);
  part.count = end - begin;
  return part;
}

}  // namespace ashlar::detail
