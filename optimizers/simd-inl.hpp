// Registers for update rules: loads and stores of every element type as floats, and a loop whose
// tail takes the same vector code as its body. Included once per SIMD target (Highway's
// foreach_target).
#if defined(ASHLAR_OPTIMIZERS_SIMD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_OPTIMIZERS_SIMD_INL_HPP
#undef ASHLAR_OPTIMIZERS_SIMD_INL_HPP
#else
#define ASHLAR_OPTIMIZERS_SIMD_INL_HPP
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

#include "ashlar/dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToUnsigned<Floats>;
using Halves = hn::Rebind<std::uint16_t, Floats>;
using Register = hn::Vec<Floats>;

inline constexpr std::size_t kLanes = hn::MaxLanes(Floats());

/// The arithmetic that the formulas in base/math ask for.
struct VectorMath {
  HWY_INLINE Register fma(Register a, Register b, Register c) const { return hn::MulAdd(a, b, c); }
  HWY_INLINE Register fnma(Register a, Register b, Register c) const {
    return hn::NegMulAdd(a, b, c);
  }
  HWY_INLINE Register sqrt(Register a) const { return hn::Sqrt(a); }
};

HWY_INLINE Register set(float value) { return hn::Set(Floats(), value); }

HWY_INLINE Register load(const float* from) { return hn::LoadU(Floats(), from); }

HWY_INLINE Register load(const bf16* from) {
  const auto halves = hn::LoadU(Halves(), reinterpret_cast<const std::uint16_t*>(from));
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(Words(), halves)));
}

HWY_INLINE Register load(const f16* from) {
  HWY_ALIGN float wide[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) wide[i] = from[i];
  return hn::Load(Floats(), wide);
}

HWY_INLINE void store(Register value, float* to) { hn::StoreU(value, Floats(), to); }

HWY_INLINE void store(Register value, bf16* to) {
  const Words words;
  const auto word = hn::BitCast(words, value);
  const auto upper = hn::ShiftRight<16>(word);
  const auto tie = hn::And(upper, hn::Set(words, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(word, hn::Add(tie, hn::Set(words, 0x7fff))));
  const auto quiet = hn::Or(upper, hn::Set(words, 0x40));
  const auto is_nan = hn::RebindMask(words, hn::IsNaN(value));
  const auto result =
      hn::BitCast(hn::RebindToSigned<Words>(), hn::IfThenElse(is_nan, quiet, rounded));
  hn::StoreU(hn::DemoteTo(Halves(), result), Halves(), reinterpret_cast<std::uint16_t*>(to));
}

HWY_INLINE void store(Register value, f16* to) {
  HWY_ALIGN float wide[kLanes];
  hn::Store(value, Floats(), wide);
  for (std::size_t i = 0; i < kLanes; ++i) to[i] = f16(wide[i]);
}

/// One register's worth of elements, the first `count` of them copied from an array and, if it is
/// writable, back to it.
template <typename T>
class Staged {
 public:
  HWY_INLINE Staged(T* elements, std::size_t count) : elements_(elements), count_(count) {
    std::copy_n(elements, count, lanes_.begin());
  }
  HWY_INLINE T* lanes() { return lanes_.data(); }
  HWY_INLINE void write_back() const {
    if constexpr (!std::is_const_v<T>) std::copy_n(lanes_.begin(), count_, elements_);
  }

 private:
  T* elements_;
  std::size_t count_;
  std::array<std::remove_const_t<T>, kLanes> lanes_{};
};

inline constexpr std::int64_t kPrefetch = 64;  // elements ahead

/// Calls body(pointers...) for each register of `count` elements of the arrays; the last may be
/// staged.
template <typename Body, typename... T>
HWY_INLINE void for_each_register(std::int64_t count, const Body& body, T*... arrays) {
  constexpr auto kStep = static_cast<std::int64_t>(kLanes);
  std::int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    // Seven streams are more than the hardware's prefetchers follow at full speed.
    (__builtin_prefetch(arrays + i + kPrefetch), ...);
    body((arrays + i)...);
  }
  if (i == count) return;
  std::tuple<Staged<T>...> tail{Staged<T>(arrays + i, static_cast<std::size_t>(count - i))...};
  std::apply(
      [&body](auto&... staged) {
        body(staged.lanes()...);
        (staged.write_back(), ...);
      },
      tail);
}

/// Calls use(pointer) with the array typed by its dtype; the caller has checked that it is a float
/// type.
template <typename Use>
HWY_INLINE void with_type(DType dtype, const void* array, const Use& use) {
  switch (dtype) {
    case DType::bf16:
      return use(static_cast<const bf16*>(array));
    case DType::f16:
      return use(static_cast<const f16*>(array));
    default:
      return use(static_cast<const float*>(array));
  }
}

}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
