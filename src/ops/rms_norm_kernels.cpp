#include "ops/rms_norm_kernels.hpp"

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rms_norm_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kRowsPerTask = 16;
constexpr std::int64_t kColumnsPerTask = 256;
constexpr std::int64_t kRowsPerPartial = kernels::kRmsRowsPerPartial;

/// y = x rstd weight.
template <typename T>
Wide<T> normalise(const T* x, const T* weight, std::int64_t n, double epsilon, T* y) {
  const WideTag<T> d;
  using C = Wide<T>;
  auto squares = hn::Zero(d);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto v = load_upto(d, x + i, m);
    squares = hn::MulAdd(v, v, squares);
  });
  const C mean = hn::GetLane(hn::SumOfLanes(d, squares)) / static_cast<C>(n);
  const C rstd = C{1} / std::sqrt(mean + static_cast<C>(epsilon));
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto v = hn::Mul(load_upto(d, x + i, m), hn::Set(d, rstd));
    store_upto(d, hn::Mul(v, load_upto(d, weight + i, m)), y + i, m);
  });
  return rstd;
}

void run_rms_norm(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const double epsilon = a.attributes.number("epsilon");
  const std::int64_t n = x.shape[-1];
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_chunk(a.context, x.elements() / n, kRowsPerTask,
                   [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                     for (std::int64_t r = begin; r < end; ++r)
                       a.outputs[1].as<Wide<T>>()[r] =
                           normalise(x.as<const T>() + r * n, a.inputs[1].as<const T>(), n, epsilon,
                                     a.outputs[0].as<T>() + r * n);
                   });
  });
}

/// dx = rstd (g - xhat mean(g xhat)), with g = dy weight, xhat = x rstd.
template <typename T>
void backward_row(const T* x, const T* weight, Wide<T> rstd, const T* dy, std::int64_t n, T* dx) {
  const WideTag<T> d;
  const auto scale = hn::Set(d, rstd);
  auto product = hn::Zero(d);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto g = hn::Mul(load_upto(d, dy + i, m), load_upto(d, weight + i, m));
    product = hn::MulAdd(g, hn::Mul(load_upto(d, x + i, m), scale), product);
  });
  const auto mean = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, product)) / static_cast<Wide<T>>(n));
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto g = hn::Mul(load_upto(d, dy + i, m), load_upto(d, weight + i, m));
    const auto xhat = hn::Mul(load_upto(d, x + i, m), scale);
    store_upto(d, hn::Mul(hn::NegMulAdd(xhat, mean, g), scale), dx + i, m);
  });
}

void run_rms_norm_backward(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1];
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_chunk(a.context, x.elements() / n, kRowsPerTask,
                   [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                     for (std::int64_t r = begin; r < end; ++r)
                       backward_row<T>(x.as<T>() + r * n, a.inputs[1].as<T>(),
                                       a.inputs[2].as<Wide<T>>()[r], a.inputs[3].as<T>() + r * n, n,
                                       a.outputs[0].as<T>() + r * n);
                   });
  });
}

/// dweight (n) = the sum of dy xhat over the rows [begin, end).
template <typename T>
void partial_sum(const KernelArguments& a, std::int64_t begin, std::int64_t end, std::int64_t n,
                 Wide<T>* dweight) {
  const WideTag<T> d;
  std::fill(dweight, dweight + n, Wide<T>{0});
  for (std::int64_t r = begin; r < end; ++r) {
    const T* x = a.inputs[0].as<T>() + r * n;
    const T* dy = a.inputs[2].as<T>() + r * n;
    const auto scale = hn::Set(d, a.inputs[1].as<Wide<T>>()[r]);
    for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
      const auto g = load_upto(d, dy + i, m);
      const auto xhat = hn::Mul(load_upto(d, x + i, m), scale);
      store_upto(d, hn::MulAdd(g, xhat, load_upto(d, dweight + i, m)), dweight + i, m);
    });
  }
}

void run_rms_norm_weight(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const TensorView& dweight = a.outputs[0];
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  const std::int64_t blocks = (rows + kRowsPerPartial - 1) / kRowsPerPartial;
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    auto* partials = reinterpret_cast<Wide<T>*>(a.workspace);
    for_each_chunk(a.context, rows, kRowsPerPartial,
                   [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                     partial_sum<T>(a, begin, end, n, partials + begin / kRowsPerPartial * n);
                   });
    with_float(dweight.dtype, [&](auto to) {
      using Out = typename decltype(to)::type;
      for_each_chunk(a.context, n, kColumnsPerTask, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          Wide<T> sum = 0;
          for (std::int64_t p = 0; p < blocks; ++p) sum += partials[p * n + i];
          dweight.as<Out>()[i] = static_cast<Out>(static_cast<Wide<Out>>(sum));
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
HWY_EXPORT(run_rms_norm);
HWY_EXPORT(run_rms_norm_backward);
HWY_EXPORT(run_rms_norm_weight);

namespace kernels {
void rms_norm(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_rms_norm)(a); }
void rms_norm_backward(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_rms_norm_backward)(a); }
void rms_norm_weight(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_rms_norm_weight)(a); }
std::int64_t rms_norm_weight_workspace(const TensorType& x) {
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  const std::int64_t blocks = (rows + kRmsRowsPerPartial - 1) / kRmsRowsPerPartial;
  return blocks * n * (x.dtype == DType::f64 ? 8 : 4);
}
}  // namespace kernels
}  // namespace ashlar
#endif
