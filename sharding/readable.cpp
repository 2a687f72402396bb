#include "sharding/readable.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"
#include "sharding/convert.hpp"

namespace ashlar {

void require_readable(const Parameter& parameter, const TensorView& out, const ReadOptions& how,
                      bool gets, std::span<const std::string_view> states) {
  const auto refuse = [&](std::string_view why) {
    throw InvalidArgument(fmt::format("read of parameter '{}': {}", parameter.name, why));
  };
  if (how.average && std::ranges::count(states, "ema") == 0)
    refuse("no average is kept; set the optimizer's ema");
  if (how.average && !parameter.trainable) refuse("it is frozen and has no average");
  if (out.data == nullptr) {
    if (gets && parameter.shape.elements() > 0) refuse("a rank that is to get it gives no memory");
    return;
  }
  if (!out.contiguous() || out.elements() != parameter.shape.elements())
    refuse(fmt::format("it has shape {}, the memory for it {}{}", to_string(parameter.shape),
                       to_string(out.shape), out.contiguous() ? "" : ", with gaps"));
  if (!convertible(DType::f32, out.dtype))
    refuse(fmt::format("it cannot become {}", name_of(out.dtype)));
}

}  // namespace ashlar
