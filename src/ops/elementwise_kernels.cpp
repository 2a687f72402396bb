#include "ops/elementwise_kernels.hpp"

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/elementwise_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/gelu_inl.hpp"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/strided.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kChunk = 1 << 14;

/// Elements i .. i + n of a run whose neighbours are `stride` apart.
template <class D, typename T>
HWY_INLINE hn::Vec<D> load_run(D d, const T* p, std::int64_t stride, std::int64_t i,
                               std::int64_t n) {
  using Lane = hn::TFromD<D>;
  if (stride == 1) return load_upto(d, p + i, n);
  if (stride == 0) return hn::Set(d, static_cast<Lane>(*p));
  HWY_ALIGN Lane lanes[hn::MaxLanes(d)] = {};
  for (std::int64_t k = 0; k < n; ++k) lanes[k] = static_cast<Lane>(p[(i + k) * stride]);
  return hn::Load(d, lanes);
}

/// y = f(a, b) for strided a and b.
template <class F>
void binary(const KernelArguments& arguments, const F& f) {
  const TensorView& a = arguments.inputs[0];
  const TensorView& b = arguments.inputs[1];
  const TensorView& y = arguments.outputs[0];
  const auto loops = merge_axes<2>(y.shape, {a.strides, b.strides});
  const auto steps = loops.inner_strides();
  with_float(y.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_chunk(
        arguments.context, y.elements(), kChunk,
        [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
          for_each_run(
              loops, begin, end,
              [&](std::int64_t first, std::int64_t count, const auto& offsets) HWY_ATTR {
                const WideTag<T> d;
                const T* pa = a.as<T>() + offsets[0];
                const T* pb = b.as<T>() + offsets[1];
                T* out = y.as<T>() + first;
                for_each_vector(d, count, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
                  store_upto(d,
                             f(d, load_run(d, pa, steps[0], i, n), load_run(d, pb, steps[1], i, n)),
                             out + i, n);
                });
              });
        });
  });
}

/// y = f(x), both contiguous.
template <class F>
void unary(const KernelArguments& arguments, const F& f) {
  const TensorView& x = arguments.inputs[0];
  const TensorView& y = arguments.outputs[0];
  with_float(y.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_chunk(arguments.context, y.elements(), kChunk,
                   [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                     const WideTag<T> d;
                     const T* in = x.as<T>() + begin;
                     T* out = y.as<T>() + begin;
                     for_each_vector(d, end - begin, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
                       store_upto(d, f(d, load_upto(d, in + i, n)), out + i, n);
                     });
                   });
  });
}

struct Add {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Add(a, b);
  }
};
struct Subtract {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Sub(a, b);
  }
};
struct Multiply {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Mul(a, b);
  }
};
struct Divide {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Div(a, b);
  }
};
struct GeluBackward {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x, V dy) const {
    return hn::Mul(dy, gelu_slope(d, x));
  }
};
struct TanhBackward {
  template <class D, class V>
  HWY_INLINE V operator()(D, V y, V dy) const {
    return hn::NegMulAdd(hn::Mul(dy, y), y, dy);
  }
};

struct Exp {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return exp_of(d, x);
  }
};
struct Log {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return lane_by_lane(d, x, [](auto v) { return std::log(v); });
  }
};
struct Tanh {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return lane_by_lane(d, x, [](auto v) { return std::tanh(v); });
  }
};
struct Gelu {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return gelu_of(d, x);
  }
};
struct Scale {
  double factor;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return hn::Mul(x, hn::Set(d, static_cast<hn::TFromD<D>>(factor)));
  }
};

void run_add(const KernelArguments& arguments) { binary(arguments, Add()); }
void run_subtract(const KernelArguments& arguments) { binary(arguments, Subtract()); }
void run_multiply(const KernelArguments& arguments) { binary(arguments, Multiply()); }
void run_divide(const KernelArguments& arguments) { binary(arguments, Divide()); }
void run_gelu_backward(const KernelArguments& arguments) { binary(arguments, GeluBackward()); }
void run_tanh_backward(const KernelArguments& arguments) { binary(arguments, TanhBackward()); }
void run_exp(const KernelArguments& arguments) { unary(arguments, Exp()); }
void run_log(const KernelArguments& arguments) { unary(arguments, Log()); }
void run_tanh(const KernelArguments& arguments) { unary(arguments, Tanh()); }
void run_gelu(const KernelArguments& arguments) { unary(arguments, Gelu()); }
void run_scale(const KernelArguments& arguments) {
  unary(arguments, Scale{arguments.attributes.number("factor")});
}

/// Between bf16 and f32 and within a type; the slow path of f64 rounds once, from double.
void run_cast(const KernelArguments& arguments) {
  const TensorView& x = arguments.inputs[0];
  const TensorView& y = arguments.outputs[0];
  with_float(x.dtype, [&](auto from) {
    with_float(y.dtype, [&](auto to) {
      using In = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      for_each_chunk(
          arguments.context, y.elements(), kChunk,
          [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
            if constexpr (std::is_same_v<Wide<In>, float> && std::is_same_v<Wide<Out>, float>) {
              const WideTag<In> d;
              for_each_vector(d, end - begin, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
                store_upto(d, load_upto(d, x.as<In>() + begin + i, n), y.as<Out>() + begin + i, n);
              });
            } else {
              for (std::int64_t i = begin; i < end; ++i)
                y.as<Out>()[i] = static_cast<Out>(static_cast<Wide<Out>>(x.as<In>()[i]));
            }
          });
    });
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_add);
HWY_EXPORT(run_subtract);
HWY_EXPORT(run_multiply);
HWY_EXPORT(run_divide);
HWY_EXPORT(run_gelu_backward);
HWY_EXPORT(run_tanh_backward);
HWY_EXPORT(run_exp);
HWY_EXPORT(run_log);
HWY_EXPORT(run_tanh);
HWY_EXPORT(run_gelu);
HWY_EXPORT(run_scale);
HWY_EXPORT(run_cast);

namespace kernels {
void add(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_add)(a); }
void subtract(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_subtract)(a); }
void multiply(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_multiply)(a); }
void divide(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_divide)(a); }
void gelu_backward(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_gelu_backward)(a); }
void tanh_backward(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_tanh_backward)(a); }
void exp(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_exp)(a); }
void log(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_log)(a); }
void tanh(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_tanh)(a); }
void gelu(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_gelu)(a); }
void scale(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_scale)(a); }
void cast(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_cast)(a); }
}  // namespace kernels
}  // namespace ashlar
#endif
