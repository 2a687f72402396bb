#include "ops/rotary_kernels.hpp"

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rotary_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kPlacesPerTask = 16;
constexpr std::int64_t kAngles = 64;  // side by side

/// y = x turned, for both halves of `count` pairs; y may be x.
template <typename T>
void turn(const T* low, const T* high, const Wide<T>* cosine, const Wide<T>* sine,
          std::int64_t count, T* out_low, T* out_high) {
  const WideTag<T> d;
  for_each_vector(d, count, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
    const auto a = load_upto(d, low + i, n), b = load_upto(d, high + i, n);
    const auto c = load_upto(d, cosine + i, n), s = load_upto(d, sine + i, n);
    store_upto(d, hn::NegMulAdd(b, s, hn::Mul(a, c)), out_low + i, n);
    store_upto(d, hn::MulAdd(a, s, hn::Mul(b, c)), out_high + i, n);
  });
}

/// The angles of all pairs of a head, `kAngles` at a time, for places that share a position: the
/// rows place, place + places, ...
template <typename T>
void turn_places(const KernelArguments& a, std::int64_t begin, std::int64_t end,
                 std::int64_t places) {
  const TensorView& x = a.inputs[0];
  const std::int64_t heads = a.attributes.integer("heads"), channels = x.shape[2];
  const std::int64_t half = channels / heads / 2, rows = x.shape[0] * x.shape[1];
  const auto* positions = a.inputs[1].as<const std::int32_t>();
  const std::int64_t offset = a.attributes.integer("offset");
  const auto direction = static_cast<double>(a.attributes.integer("direction"));
  const double slope = -std::log(a.attributes.number("base")) / static_cast<double>(half);
  double frequency[kAngles];
  HWY_ALIGN Wide<T> cosine[kAngles], sine[kAngles];
  for (std::int64_t first = 0; first < half; first += kAngles) {
    const std::int64_t count = std::min(kAngles, half - first);
    for (std::int64_t i = 0; i < count; ++i)
      frequency[i] = direction * std::exp(slope * static_cast<double>(first + i));
    for (std::int64_t place = begin; place < end; ++place) {
      const std::int64_t position = (positions == nullptr ? place : positions[place]) + offset;
      for (std::int64_t i = 0; i < count; ++i) {
        const double angle = static_cast<double>(position) * frequency[i];
        cosine[i] = static_cast<Wide<T>>(std::cos(angle));
        sine[i] = static_cast<Wide<T>>(std::sin(angle));
      }
      for (std::int64_t row = place; row < rows; row += places)
        for (std::int64_t head = 0; head < heads; ++head) {
          const std::int64_t at = row * channels + head * 2 * half + first;
          const T* from = x.as<const T>() + at;
          T* to = a.outputs[0].as<T>() + at;
          turn(from, from + half, cosine, sine, count, to, to + half);
        }
    }
  }
}

void run_rotary(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t places = a.inputs[1].data == nullptr ? x.shape[1] : x.shape[0] * x.shape[1];
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_chunk(a.context, places, kPlacesPerTask, [&](std::int64_t begin, std::int64_t end) {
      turn_places<T>(a, begin, end, places);
    });
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_rotary);

namespace kernels {
void rotary(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_rotary)(a); }
}  // namespace kernels
}  // namespace ashlar
#endif
