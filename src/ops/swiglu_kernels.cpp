#include "ops/swiglu_kernels.hpp"

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/swiglu_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kChunk = 1 << 14;

template <class D, class V>
HWY_INLINE V silu_of(D d, V x) {
  return hn::Mul(x, logistic(d, x));
}

/// d silu / dx = s (1 + x (1 - s)), s = logistic(x).
template <class D, class V>
HWY_INLINE V silu_slope(D d, V x) {
  const auto s = logistic(d, x);
  return hn::MulAdd(hn::Mul(x, s), hn::Sub(hn::Set(d, hn::TFromD<D>{1}), s), s);
}

/// Calls body(d, type, i, n) for all vectors of `like`: elements [i, i + n).
template <class Body>
void for_all(const KernelArguments& a, const TensorView& like, const Body& body) {
  with_float(like.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_chunk(a.context, like.elements(), kChunk,
                   [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                     const WideTag<T> d;
                     for_each_vector(d, end - begin, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
                       body(d, tag, begin + i, n);
                     });
                   });
  });
}

void run_silu(const KernelArguments& a) {
  for_all(a, a.outputs[0], [&](auto d, auto tag, std::int64_t i, std::int64_t n) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const auto x = load_upto(d, a.inputs[0].as<T>() + i, n);
    store_upto(d, silu_of(d, x), a.outputs[0].as<T>() + i, n);
  });
}

void run_silu_backward(const KernelArguments& a) {
  for_all(a, a.outputs[0], [&](auto d, auto tag, std::int64_t i, std::int64_t n) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const auto x = load_upto(d, a.inputs[0].as<T>() + i, n);
    const auto dy = load_upto(d, a.inputs[1].as<T>() + i, n);
    store_upto(d, hn::Mul(dy, silu_slope(d, x)), a.outputs[0].as<T>() + i, n);
  });
}

void run_swiglu(const KernelArguments& a) {
  for_all(a, a.outputs[0], [&](auto d, auto tag, std::int64_t i, std::int64_t n) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const auto gate = load_upto(d, a.inputs[0].as<T>() + i, n);
    const auto up = load_upto(d, a.inputs[1].as<T>() + i, n);
    store_upto(d, hn::Mul(silu_of(d, gate), up), a.outputs[0].as<T>() + i, n);
  });
}

void run_swiglu_backward(const KernelArguments& a) {
  for_all(a, a.outputs[0], [&](auto d, auto tag, std::int64_t i, std::int64_t n) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const auto gate = load_upto(d, a.inputs[0].as<T>() + i, n);
    const auto up = load_upto(d, a.inputs[1].as<T>() + i, n);
    const auto dy = load_upto(d, a.inputs[2].as<T>() + i, n);
    store_upto(d, hn::Mul(hn::Mul(dy, up), silu_slope(d, gate)), a.outputs[0].as<T>() + i, n);
    store_upto(d, hn::Mul(dy, silu_of(d, gate)), a.outputs[1].as<T>() + i, n);
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_silu);
HWY_EXPORT(run_silu_backward);
HWY_EXPORT(run_swiglu);
HWY_EXPORT(run_swiglu_backward);

namespace kernels {
void silu(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_silu)(a); }
void silu_backward(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_silu_backward)(a); }
void swiglu(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_swiglu)(a); }
void swiglu_backward(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_swiglu_backward)(a); }
}  // namespace kernels
}  // namespace ashlar
#endif
