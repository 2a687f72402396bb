// SIMD helpers of the kernels, compiled once per instruction set: loads and stores that widen and
// round 16-bit floats, tails that compute exactly like full vectors, exp and the logistic function.
#if defined(ASHLAR_OPS_SIMD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_OPS_SIMD_INL_HPP
#undef ASHLAR_OPS_SIMD_INL_HPP
#else
#define ASHLAR_OPS_SIMD_INL_HPP
#endif

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ashlar/dtype.hpp"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The type that T is computed in: double for double, float for everything shorter.
template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Vector tag of the type that T is computed in.
template <typename T>
using WideTag = hn::ScalableTag<Wide<T>>;

/// Elements [p, p + lanes), widened.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const hn::TFromD<D>* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const bf16* p) {
  const hn::Rebind<std::uint16_t, D> half;
  const hn::Rebind<std::uint32_t, D> word;
  const auto bits = hn::LoadU(half, reinterpret_cast<const std::uint16_t*>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(word, bits)));
}

/// Rounds to nearest even as the constructor of bf16 does; NaN stays NaN.
template <class D>
HWY_INLINE void store(D d, hn::Vec<D> v, hn::TFromD<D>* p) {
  hn::StoreU(v, d, p);
}
template <class D>
HWY_INLINE void store(D, hn::Vec<D> v, bf16* p) {
  const hn::Rebind<std::uint32_t, D> word;
  const hn::Rebind<std::int32_t, D> integer;
  const hn::Rebind<std::uint16_t, D> half;
  const auto bits = hn::BitCast(word, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(word, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(word, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(word, 0x400000));
  const auto nan = hn::RebindMask(word, hn::IsNaN(v));
  const auto upper = hn::ShiftRight<16>(hn::IfThenElse(nan, quiet, rounded));
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(integer, upper)), half,
             reinterpret_cast<std::uint16_t*>(p));
}

/// The first n < lanes elements, zeros behind them.
template <class D, typename T>
HWY_INLINE hn::Vec<D> load_first(D d, const T* p, std::int64_t n) {
  HWY_ALIGN hn::TFromD<D> lanes[hn::MaxLanes(d)] = {};
  for (std::int64_t i = 0; i < n; ++i) lanes[i] = static_cast<hn::TFromD<D>>(p[i]);
  return hn::Load(d, lanes);
}
template <class D, typename T>
HWY_INLINE void store_first(D d, hn::Vec<D> v, T* p, std::int64_t n) {
  HWY_ALIGN T lanes[hn::MaxLanes(d)];
  store(d, v, lanes);
  for (std::int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

/// Calls body(i, n) for i = 0, lanes, 2 lanes, ...; n is lanes, less for the tail.
template <class D, class Body>
HWY_INLINE void for_each_vector(D d, std::int64_t count, const Body& body) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) body(i, lanes);
  if (i < count) body(i, count - i);
}
template <class D, typename T>
HWY_INLINE hn::Vec<D> load_upto(D d, const T* p, std::int64_t n) {
  return HWY_LIKELY(n == static_cast<std::int64_t>(hn::Lanes(d))) ? load(d, p)
                                                                  : load_first(d, p, n);
}
template <class D, typename T>
HWY_INLINE void store_upto(D d, hn::Vec<D> v, T* p, std::int64_t n) {
  if (HWY_LIKELY(n == static_cast<std::int64_t>(hn::Lanes(d)))) {
    store(d, v, p);
  } else {
    store_first(d, v, p, n);
  }
}

/// Applies a function of one number lane by lane: exact, slow.
template <class D, class F>
HWY_INLINE hn::Vec<D> lane_by_lane(D d, hn::Vec<D> x, const F& f) {
  HWY_ALIGN hn::TFromD<D> lanes[hn::MaxLanes(d)];
  hn::Store(x, d, lanes);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = f(lanes[i]);
  return hn::Load(d, lanes);
}

/// e^x within 2 ulp for f32: 2^k p(r) with x = k ln 2 + r and a minimax polynomial of degree 6.
/// Results below FLT_MIN are 0; -inf gives 0, overflow +inf, NaN stays NaN.
template <class D>
HWY_INLINE hn::Vec<D> exp_of(D d, hn::Vec<D> x) {
  if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
    return lane_by_lane(d, x, [](double v) { return std::exp(v); });
  } else {
    const hn::Rebind<std::int32_t, D> integer;
    const auto k = hn::Round(hn::Mul(x, hn::Set(d, 1.442695041F)));
    const auto r = hn::NegMulAdd(k, hn::Set(d, -2.12194440e-4F),
                                 hn::NegMulAdd(k, hn::Set(d, 0.693359375F), x));
    auto q = hn::MulAdd(r, hn::Set(d, 1.381453992e-03F), hn::Set(d, 8.368745099e-03F));
    q = hn::MulAdd(r, q, hn::Set(d, 4.166839079e-02F));
    q = hn::MulAdd(r, q, hn::Set(d, 1.666652040e-01F));
    q = hn::MulAdd(r, q, hn::Set(d, 4.999999343e-01F));
    const auto p = hn::MulAdd(hn::Mul(r, r), q, hn::Add(r, hn::Set(d, 1.0F)));
    const auto shift = hn::ShiftLeft<23>(hn::ConvertTo(integer, k));
    auto y = hn::BitCast(d, hn::Add(hn::BitCast(integer, p), shift));
    y = hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33654F)), y);
    y = hn::IfThenElse(hn::Gt(x, hn::Set(d, 88.722831F)),
                       hn::Set(d, std::numeric_limits<float>::infinity()), y);
    return hn::IfThenElse(hn::IsNaN(x), x, y);
  }
}

/// 1 / (1 + e^-x).
template <class D>
HWY_INLINE hn::Vec<D> logistic(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, hn::TFromD<D>{1});
  return hn::Div(one, hn::Add(one, exp_of(d, hn::Neg(x))));
}

}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
