#include "ops/softmax_kernels.hpp"

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/softmax_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/check.hpp"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kRowsPerTask = 8;

/// Elements of a row, -infinity behind its end.
template <class D, typename T>
HWY_INLINE hn::Vec<D> load_scores(D d, const T* p, std::int64_t n) {
  const auto hidden = hn::Set(d, -std::numeric_limits<hn::TFromD<D>>::infinity());
  return hn::IfThenElse(hn::FirstN(d, static_cast<std::size_t>(n)), load_upto(d, p, n), hidden);
}

template <typename T>
Wide<T> largest(const T* x, std::int64_t n) {
  const WideTag<T> d;
  auto most = hn::Set(d, -std::numeric_limits<Wide<T>>::infinity());
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    most = hn::Max(most, load_scores(d, x + i, m));
  });
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

/// Sum of e^(x - most).
template <typename T>
Wide<T> sum_of_exp(const T* x, std::int64_t n, Wide<T> most) {
  const WideTag<T> d;
  const auto shift = hn::Set(d, most);
  auto sum = hn::Zero(d);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    sum = hn::Add(sum, exp_of(d, hn::Sub(load_scores(d, x + i, m), shift)));
  });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// y = factor * e^(x - shift).
template <typename T>
void scaled_exp(const T* x, std::int64_t n, Wide<T> shift, Wide<T> factor, T* y) {
  const WideTag<T> d;
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto e = exp_of(d, hn::Sub(load_upto(d, x + i, m), hn::Set(d, shift)));
    store_upto(d, hn::Mul(e, hn::Set(d, factor)), y + i, m);
  });
}

/// Calls body(tag, row, offset of the row) for every row of the last axis.
template <class Body>
void for_each_row(const KernelArguments& a, const Body& body) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1];
  with_float(x.dtype, [&](auto tag) {
    for_each_chunk(a.context, x.elements() / n, kRowsPerTask,
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t r = begin; r < end; ++r) body(tag, r, r * n);
                   });
  });
}

void run_softmax(const KernelArguments& a) {
  const std::int64_t n = a.inputs[0].shape[-1];
  for_each_row(a, [&](auto tag, std::int64_t, std::int64_t at) {
    using T = typename decltype(tag)::type;
    const T* x = a.inputs[0].as<T>() + at;
    const Wide<T> most = largest(x, n);
    scaled_exp(x, n, most, Wide<T>{1} / sum_of_exp(x, n, most), a.outputs[0].as<T>() + at);
  });
}

/// dx = y (dy - sum(y dy)).
template <typename T>
void softmax_backward_row(const T* y, const T* dy, std::int64_t n, T* dx) {
  const WideTag<T> d;
  auto sum = hn::Zero(d);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    sum = hn::MulAdd(load_upto(d, y + i, m), load_upto(d, dy + i, m), sum);
  });
  const auto total = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, sum)));
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto centred = hn::Sub(load_upto(d, dy + i, m), total);
    store_upto(d, hn::Mul(load_upto(d, y + i, m), centred), dx + i, m);
  });
}

void run_softmax_backward(const KernelArguments& a) {
  const std::int64_t n = a.inputs[0].shape[-1];
  for_each_row(a, [&](auto tag, std::int64_t, std::int64_t at) {
    using T = typename decltype(tag)::type;
    softmax_backward_row<T>(a.inputs[0].as<T>() + at, a.inputs[1].as<T>() + at, n,
                            a.outputs[0].as<T>() + at);
  });
}

/// Rows whose target counts.
std::int64_t counted(const TensorView& targets) {
  const auto* begin = targets.as<std::int32_t>();
  return std::count_if(begin, begin + targets.elements(), [](std::int32_t t) { return t >= 0; });
}

void run_cross_entropy(const KernelArguments& a) {
  const TensorView& logits = a.inputs[0];
  const auto* targets = a.inputs[1].as<std::int32_t>();
  const std::int64_t n = logits.shape[-1];
  for_each_row(a, [&](auto tag, std::int64_t row, std::int64_t at) {
    using T = typename decltype(tag)::type;
    require(targets[row] < n, "cross_entropy: target {} at index {} is not below {}", targets[row],
            row, n);
    const T* x = logits.as<T>() + at;
    const Wide<T> most = largest(x, n);
    a.outputs[1].as<Wide<T>>()[row] = most + std::log(sum_of_exp(x, n, most));
  });
  with_float(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    double total = 0;
    for (std::int64_t r = 0; r < a.inputs[1].elements(); ++r) {
      if (targets[r] >= 0)
        total += static_cast<double>(a.outputs[1].as<Wide<T>>()[r]) -
                 static_cast<double>(logits.as<T>()[r * n + targets[r]]);
    }
    const auto rows = static_cast<double>(std::max<std::int64_t>(1, counted(a.inputs[1])));
    *a.outputs[0].as<Wide<T>>() = static_cast<Wide<T>>(total / rows);
  });
}

/// dlogits = (softmax - onehot) dloss / rows.
void run_cross_entropy_backward(const KernelArguments& a) {
  const auto* targets = a.inputs[1].as<std::int32_t>();
  const std::int64_t n = a.inputs[0].shape[-1];
  const std::int64_t rows = std::max<std::int64_t>(1, counted(a.inputs[1]));
  for_each_row(a, [&](auto tag, std::int64_t row, std::int64_t at) {
    using T = typename decltype(tag)::type;
    T* dx = a.outputs[0].as<T>() + at;
    if (targets[row] < 0) return std::fill(dx, dx + n, static_cast<T>(Wide<T>{0}));
    const T* x = a.inputs[0].as<T>() + at;
    const Wide<T> factor = *a.inputs[3].as<Wide<T>>() / static_cast<Wide<T>>(rows);
    const Wide<T> lse = a.inputs[2].as<Wide<T>>()[row];
    const auto right = static_cast<Wide<T>>(x[targets[row]]);  // read before dx may overwrite it
    scaled_exp(x, n, lse, factor, dx);
    dx[targets[row]] = static_cast<T>(factor * (std::exp(right - lse) - Wide<T>{1}));
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_softmax);
HWY_EXPORT(run_softmax_backward);
HWY_EXPORT(run_cross_entropy);
HWY_EXPORT(run_cross_entropy_backward);

namespace kernels {
void softmax(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_softmax)(a); }
void softmax_backward(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_softmax_backward)(a); }
void cross_entropy(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_cross_entropy)(a); }
void cross_entropy_backward(const KernelArguments& a) {
  HWY_DYNAMIC_DISPATCH(run_cross_entropy_backward)(a);
}
}  // namespace kernels
}  // namespace ashlar
#endif
