#include "ops/layer_norm_kernels.hpp"

#include "ashlar/memory_resource.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/layer_norm_kernels.cpp"
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

template <typename T>
Wide<T> sum_of(const T* row, std::int64_t n) {
  const WideTag<T> d;
  auto sum = hn::Zero(d);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    sum = hn::Add(sum, load_upto(d, row + i, m));
  });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <typename T>
Wide<T> squares_about(const T* row, std::int64_t n, Wide<T> mean) {
  const WideTag<T> d;
  const auto centre = hn::Set(d, mean);
  auto sum = hn::Zero(d);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto used = hn::FirstN(d, static_cast<std::size_t>(m));
    const auto v = hn::IfThenElseZero(used, hn::Sub(load_upto(d, row + i, m), centre));
    sum = hn::MulAdd(v, v, sum);
  });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <typename T>
void normalise(const T* x, const T* weight, const T* bias, std::int64_t n, double epsilon, T* y,
               Wide<T>* mean, Wide<T>* rstd) {
  const WideTag<T> d;
  using C = Wide<T>;
  const C count = static_cast<C>(n);
  const C centre = sum_of(x, n) / count;
  const C scale = C{1} / std::sqrt(squares_about(x, n, centre) / count + static_cast<C>(epsilon));
  *mean = centre;
  *rstd = scale;
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto v = hn::Mul(hn::Sub(load_upto(d, x + i, m), hn::Set(d, centre)), hn::Set(d, scale));
    store_upto(d, hn::MulAdd(v, load_upto(d, weight + i, m), load_upto(d, bias + i, m)), y + i, m);
  });
}

/// `residual` may be null; then `sum` is x itself.
void run_forward(const KernelArguments& a, const TensorView* residual, const TensorView& sum,
                 const TensorView& weight, const TensorView& bias, const TensorView& y,
                 const TensorView& mean, const TensorView& rstd) {
  const TensorView& x = a.inputs[0];
  const double epsilon = a.attributes.number("epsilon");
  const std::int64_t n = x.shape[-1];
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_chunk(a.context, x.elements() / n, kRowsPerTask,
                   [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                     const WideTag<T> d;
                     for (std::int64_t r = begin; r < end; ++r) {
                       T* total = sum.as<T>() + r * n;
                       if (residual != nullptr) {
                         for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
                           store_upto(d,
                                      hn::Add(load_upto(d, x.as<T>() + r * n + i, m),
                                              load_upto(d, residual->as<T>() + r * n + i, m)),
                                      total + i, m);
                         });
                       }
                       normalise(total, weight.as<T>(), bias.as<T>(), n, epsilon, y.as<T>() + r * n,
                                 mean.as<Wide<T>>() + r, rstd.as<Wide<T>>() + r);
                     }
                   });
  });
}

void run_layer_norm(const KernelArguments& a) {
  run_forward(a, nullptr, a.inputs[0], a.inputs[1], a.inputs[2], a.outputs[0], a.outputs[1],
              a.outputs[2]);
}

void run_add_layer_norm(const KernelArguments& a) {
  run_forward(a, &a.inputs[1], a.outputs[0], a.inputs[2], a.inputs[3], a.outputs[1], a.outputs[2],
              a.outputs[3]);
}

/// dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsum, with g = dy weight, xhat = (x - mean) rstd.
template <typename T>
void backward_row(const T* x, const T* weight, Wide<T> mean, Wide<T> rstd, const T* dy,
                  const T* dsum, std::int64_t n, T* dx) {
  const WideTag<T> d;
  using C = Wide<T>;
  const auto centre = hn::Set(d, mean), scale = hn::Set(d, rstd);
  auto total = hn::Zero(d), product = hn::Zero(d);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto g = hn::Mul(load_upto(d, dy + i, m), load_upto(d, weight + i, m));
    const auto v = hn::Mul(hn::Sub(load_upto(d, x + i, m), centre), scale);
    total = hn::Add(total, g);
    product = hn::MulAdd(g, v, product);
  });
  const C count = static_cast<C>(n);
  const auto mean_g = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, total)) / count);
  const auto mean_gx = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, product)) / count);
  for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
    const auto g = hn::Mul(load_upto(d, dy + i, m), load_upto(d, weight + i, m));
    const auto v = hn::Mul(hn::Sub(load_upto(d, x + i, m), centre), scale);
    const auto inner = hn::NegMulAdd(v, mean_gx, hn::Sub(g, mean_g));
    const auto result = dsum == nullptr ? hn::Mul(inner, scale)
                                        : hn::MulAdd(inner, scale, load_upto(d, dsum + i, m));
    store_upto(d, result, dx + i, m);
  });
}

void run_layer_norm_backward(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1];
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_chunk(
        a.context, x.elements() / n, kRowsPerTask,
        [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
          for (std::int64_t r = begin; r < end; ++r) {
            const T* dsum = a.inputs[5].data == nullptr ? nullptr : a.inputs[5].as<T>() + r * n;
            backward_row<T>(x.as<T>() + r * n, a.inputs[1].as<T>(), a.inputs[2].as<Wide<T>>()[r],
                            a.inputs[3].as<Wide<T>>()[r], a.inputs[4].as<T>() + r * n, dsum, n,
                            a.outputs[0].as<T>() + r * n);
          }
        });
  });
}

/// Sums of dy xhat and dy over the rows [begin, end).
template <typename T>
void partial_sums(const KernelArguments& a, std::int64_t begin, std::int64_t end, std::int64_t n,
                  Wide<T>* dweight, Wide<T>* dbias) {
  const WideTag<T> d;
  std::fill(dweight, dweight + n, Wide<T>{0});
  std::fill(dbias, dbias + n, Wide<T>{0});
  for (std::int64_t r = begin; r < end; ++r) {
    const T* x = a.inputs[0].as<T>() + r * n;
    const T* dy = a.inputs[3].as<T>() + r * n;
    const auto centre = hn::Set(d, a.inputs[1].as<Wide<T>>()[r]);
    const auto scale = hn::Set(d, a.inputs[2].as<Wide<T>>()[r]);
    for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
      const auto g = load_upto(d, dy + i, m);
      const auto v = hn::Mul(hn::Sub(load_upto(d, x + i, m), centre), scale);
      store_upto(d, hn::MulAdd(g, v, load_upto(d, dweight + i, m)), dweight + i, m);
      store_upto(d, hn::Add(g, load_upto(d, dbias + i, m)), dbias + i, m);
    });
  }
}

/// Adds the partials of all blocks, in their order.
template <typename C>
void total_of(const RunContext& context, const C* partials, std::int64_t blocks, std::int64_t n,
              const TensorView& out) {
  with_float(out.dtype, [&](auto tag) {
    using Out = typename decltype(tag)::type;
    for_each_chunk(context, n, kColumnsPerTask, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        C sum = 0;
        for (std::int64_t b = 0; b < blocks; ++b) sum += partials[b * 2 * n + i];
        out.as<Out>()[i] = static_cast<Out>(static_cast<Wide<Out>>(sum));
      }
    });
  });
}

void run_layer_norm_parameters(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    auto* partials = reinterpret_cast<Wide<T>*>(a.workspace);
    for_each_chunk(a.context, rows, kernels::kRowsPerPartial,
                   [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                     Wide<T>* mine = partials + begin / kernels::kRowsPerPartial * 2 * n;
                     partial_sums<T>(a, begin, end, n, mine, mine + n);
                   });
    const std::int64_t blocks = (rows + kernels::kRowsPerPartial - 1) / kernels::kRowsPerPartial;
    total_of(a.context, partials, blocks, n, a.outputs[0]);
    total_of(a.context, partials + n, blocks, n, a.outputs[1]);
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_layer_norm);
HWY_EXPORT(run_add_layer_norm);
HWY_EXPORT(run_layer_norm_backward);
HWY_EXPORT(run_layer_norm_parameters);

namespace kernels {
void layer_norm(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_layer_norm)(a); }
void add_layer_norm(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_add_layer_norm)(a); }
void layer_norm_backward(const KernelArguments& a) {
  HWY_DYNAMIC_DISPATCH(run_layer_norm_backward)(a);
}
void layer_norm_parameters(const KernelArguments& a) {
  HWY_DYNAMIC_DISPATCH(run_layer_norm_parameters)(a);
}
std::int64_t layer_norm_parameters_workspace(const TensorType& x) {
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  return (rows + kRowsPerPartial - 1) / kRowsPerPartial * 2 * n * (x.dtype == DType::f64 ? 8 : 4);
}
}  // namespace kernels
}  // namespace ashlar
#endif
