#include "ops/product/softmax_rows.hpp"

#include <cmath>
#include <limits>

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/product/softmax_rows.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kRowChunk = 8;

/// Elements [p, p + n), n <= lanes, `padding` behind them.
template <class D, typename T>
HWY_INLINE hn::Vec<D> load_padded(D d, const T* p, std::int64_t n, T padding) {
  if (HWY_LIKELY(n == static_cast<std::int64_t>(hn::Lanes(d)))) return load(d, p);
  HWY_ALIGN T lanes[hn::MaxLanes(d)];
  hn::Store(hn::Set(d, padding), d, lanes);
  for (std::int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return hn::Load(d, lanes);
}

/// Folds a row four vectors at a time: f(accumulator, position, count) for each vector.
template <class D, class V, class F, class Join>
HWY_INLINE V fold(D d, std::int64_t count, V start, const F& f, const Join& join) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  V a = start, b = start, c = start, e = start;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    a = f(a, i, lanes);
    b = f(b, i + lanes, lanes);
    c = f(c, i + 2 * lanes, lanes);
    e = f(e, i + 3 * lanes, lanes);
  }
  for (; i + lanes <= count; i += lanes) a = f(a, i, lanes);
  if (i < count) b = f(b, i, count - i);
  return join(join(a, b), join(c, e));
}

template <class D, typename L>
HWY_INLINE L maximum(D d, const L* logits, std::int64_t columns) {
  constexpr L kLowest = -std::numeric_limits<L>::infinity();
  const auto join = [](auto a, auto b) HWY_ATTR { return hn::Max(a, b); };
  const auto most = fold(
      d, columns, hn::Set(d, kLowest),
      [&](auto a, std::int64_t i, std::int64_t n)
          HWY_ATTR { return hn::Max(a, load_padded(d, logits + i, n, kLowest)); },
      join);
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

/// sum_j exp(logits[j] - shift); with Keep the terms replace the logits.
template <bool Keep, class D, typename L>
HWY_INLINE L sum_of_exponentials(D d, L* logits, std::int64_t columns, L shift) {
  constexpr L kLowest = -std::numeric_limits<L>::infinity();
  const auto offset = hn::Set(d, shift);
  const auto join = [](auto a, auto b) HWY_ATTR { return hn::Add(a, b); };
  const auto sum = fold(
      d, columns, hn::Zero(d),
      [&](auto a, std::int64_t i, std::int64_t n) HWY_ATTR {
        const auto term = exp_of(
            d, hn::Sub(load_padded(d, static_cast<const L*>(logits + i), n, kLowest), offset));
        if constexpr (Keep) store_upto(d, term, logits + i, n);
        return hn::Add(a, term);
      },
      join);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <bool Keep, typename L>
HWY_INLINE L row_loss(L* logits, std::int64_t columns, std::int32_t target, double* loss) {
  const hn::ScalableTag<L> d;
  const L most = maximum(d, logits, columns);
  const L of_target = logits[target];
  const L sum = sum_of_exponentials<Keep>(d, logits, columns, most);
  *loss = std::log(double{sum}) + (double{most} - double{of_target});
  return sum;
}

template <typename L, typename T>
HWY_INLINE void row_gradient(L* logits, std::int64_t columns, std::int32_t target, double scale,
                             double* loss, T* gradient) {
  const hn::ScalableTag<L> d;
  *loss = 0;
  if (target < 0) {
    for (std::int64_t j = 0; j < columns; ++j) gradient[j] = T{};
    return;
  }
  const L sum = row_loss<true>(logits, columns, target, loss);
  const L factor = static_cast<L>(scale / double{sum});
  const L of_target = logits[target] * factor - static_cast<L>(scale);
  const auto factors = hn::Set(d, factor);
  for_each_vector(d, columns, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
    store_upto(d, hn::Mul(load_upto(d, logits + j, n), factors), gradient + j, n);
  });
  gradient[target] = static_cast<T>(of_target);
}

template <typename L, typename T>
void gradient_rows(const RunContext& context, const LogitRows& rows, double scale, double* losses,
                   std::byte* gradient) {
  for_each_chunk(context, rows.rows, kRowChunk, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    for (std::int64_t i = begin; i < end; ++i) {
      row_gradient(reinterpret_cast<L*>(rows.logits) + i * rows.columns, rows.columns,
                   rows.targets[i], scale, losses + i,
                   reinterpret_cast<T*>(gradient) + i * rows.columns);
    }
  });
}

template <typename L>
void loss_rows(const RunContext& context, const LogitRows& rows, double* losses) {
  for_each_chunk(context, rows.rows, kRowChunk, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    for (std::int64_t i = begin; i < end; ++i) {
      losses[i] = 0;
      if (rows.targets[i] >= 0)
        row_loss<false>(reinterpret_cast<L*>(rows.logits) + i * rows.columns, rows.columns,
                        rows.targets[i], losses + i);
    }
  });
}

}  // namespace

void run_loss(const RunContext& context, const LogitRows& rows, double* losses) {
  if (rows.dtype == DType::f64) return loss_rows<double>(context, rows, losses);
  loss_rows<float>(context, rows, losses);
}

void run_gradient(const RunContext& context, const LogitRows& rows, double scale, double* losses,
                  std::byte* gradient, DType dtype) {
  if (rows.dtype == DType::f64)
    return gradient_rows<double, double>(context, rows, scale, losses, gradient);
  if (dtype == DType::bf16)
    return gradient_rows<float, bf16>(context, rows, scale, losses, gradient);
  gradient_rows<float, float>(context, rows, scale, losses, gradient);
}

}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_loss);
HWY_EXPORT(run_gradient);

void negative_log_likelihood(const RunContext& context, const LogitRows& rows, double* losses) {
  HWY_DYNAMIC_DISPATCH(run_loss)(context, rows, losses);
}

void negative_log_likelihood_gradient(const RunContext& context, const LogitRows& rows,
                                      double scale, double* losses, std::byte* gradient,
                                      DType dtype) {
  HWY_DYNAMIC_DISPATCH(run_gradient)(context, rows, scale, losses, gradient, dtype);
}

}  // namespace ashlar
#endif
