// gelu, tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415, section 2), written with the
// logistic function: 0.5 (1 + tanh u) = 1 / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3).
#if defined(ASHLAR_OPS_GELU_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_OPS_GELU_INL_HPP
#undef ASHLAR_OPS_GELU_INL_HPP
#else
#define ASHLAR_OPS_GELU_INL_HPP
#endif

#include "ops/simd_inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {

/// logistic(2u).
template <class D, class V>
HWY_INLINE V gelu_gate(D d, V x) {
  using Lane = hn::TFromD<D>;
  const auto a = hn::Set(d, static_cast<Lane>(1.5957691216057307118));  // 2 sqrt(2/pi)
  const auto b = hn::Set(d, static_cast<Lane>(0.0713548162726002527));  // a * 0.044715
  return logistic(d, hn::Mul(x, hn::MulAdd(hn::Mul(b, x), x, a)));
}

template <class D, class V>
HWY_INLINE V gelu_of(D d, V x) {
  return hn::Mul(x, gelu_gate(d, x));
}

/// d gelu / dx = s + x s (1 - s) d(2u)/dx. Far out, where x^2 overflows, the second term is 0.
template <class D, class V>
HWY_INLINE V gelu_slope(D d, V x) {
  using Lane = hn::TFromD<D>;
  const auto s = gelu_gate(d, x);
  const auto a = hn::Set(d, static_cast<Lane>(1.5957691216057307118));
  const auto b3 = hn::Set(d, static_cast<Lane>(0.2140644488178007581));  // 3 a * 0.044715
  const auto inner = hn::MulAdd(hn::Mul(b3, x), x, a);
  const auto flank = hn::NegMulAdd(s, s, s);
  const auto slope = hn::MulAdd(hn::Mul(x, flank), inner, s);
  return hn::IfThenElse(hn::Eq(flank, hn::Zero(d)), s, slope);
}

}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
