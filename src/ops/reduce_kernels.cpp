#include "ops/reduce.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/reduce_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/strided.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kColumns = 256;  // outputs that are summed side by side
constexpr std::int64_t kDepth = 64;     // terms per block; blocks are added in double
constexpr std::int64_t kRun = 1024;     // the same along a contiguous run
constexpr std::int64_t kChunk = 1 << 14;

/// Axes that stay and axes that are summed.
struct Split {
  Loops<1> kept;
  Loops<1> summed;
  std::int64_t outputs = 1;
  std::int64_t terms = 1;  // per output
};

/// A list of extents or strides that grows without allocating.
struct Axes {
  std::array<std::int64_t, Shape::kMaxRank> values{};
  std::size_t count = 0;
  void add(std::int64_t value) { values[count++] = value; }
  Shape shape() const { return Shape(std::span(values.data(), count)); }
};

/// The axes of x that are in the mask, or those that are not.
Loops<1> axes_of(const TensorView& x, std::int64_t mask, bool in_mask) {
  Shape shape = x.shape;
  for (int axis = 0; axis < x.shape.rank(); ++axis) {
    if ((((mask >> axis) & 1) != 0) != in_mask) shape[axis] = 1;
  }
  return merge_axes<1>(shape, {x.strides});
}

std::int64_t elements_of(const Loops<1>& loops) {
  std::int64_t product = 1;
  for (int axis = 0; axis < loops.rank; ++axis)
    product *= loops.extents[static_cast<std::size_t>(axis)];
  return product;
}

Split split(const TensorView& x, std::int64_t mask) {
  const Loops<1> kept = axes_of(x, mask, false), summed = axes_of(x, mask, true);
  return {kept, summed, elements_of(kept), elements_of(summed)};
}

/// Blocks of float sums added in double.
template <typename T>
double sum_run(const T* p, std::int64_t stride, std::int64_t count) {
  const WideTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  double total = 0;
  for (std::int64_t begin = 0; begin < count; begin += kRun) {
    const std::int64_t n = std::min(kRun, count - begin);
    std::int64_t i = 0;
    if (stride == 1) {
      auto a = hn::Zero(d), b = hn::Zero(d);
      for (; i + 2 * lanes <= n; i += 2 * lanes) {
        a = hn::Add(a, load(d, p + begin + i));
        b = hn::Add(b, load(d, p + begin + i + lanes));
      }
      total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, hn::Add(a, b))));
    }
    for (; i < n; ++i) total += static_cast<double>(p[(begin + i) * stride]);
  }
  return total;
}

/// One output at a time.
template <typename T, typename Out>
void sum_rows(const Split& s, const T* x, Out* y, std::int64_t begin, std::int64_t end) {
  const std::int64_t stride = s.summed.inner_strides()[0];
  for (std::int64_t o = begin; o < end; ++o) {
    for_each_run(s.kept, o, o + 1, [&](std::int64_t, std::int64_t, const auto& at) HWY_ATTR {
      double total = 0;
      for_each_run(s.summed, 0, s.terms,
                   [&](std::int64_t, std::int64_t count, const auto& from)
                       HWY_ATTR { total += sum_run(x + at[0] + from[0], stride, count); });
      y[o] = static_cast<Out>(static_cast<Wide<Out>>(total));
    });
  }
}

/// Adjacent outputs side by side, their terms at unit distance.
template <typename T, typename Out>
void sum_columns(const Split& s, const T* x, Out* y, std::int64_t count) {
  const WideTag<T> d;
  using Lane = Wide<T>;
  const std::int64_t stride = s.summed.inner_strides()[0];
  HWY_ALIGN Lane block[kColumns] = {};
  double total[kColumns] = {};
  std::int64_t pending = 0;
  const auto flush = [&] {
    for (std::int64_t i = 0; i < count; ++i) {
      total[i] += static_cast<double>(block[i]);
      block[i] = 0;
    }
    pending = 0;
  };
  for_each_run(s.summed, 0, s.terms,
               [&](std::int64_t, std::int64_t terms, const auto& from) HWY_ATTR {
                 for (std::int64_t t = 0; t < terms; ++t) {
                   const T* row = x + from[0] + t * stride;
                   for_each_vector(d, count, [&](std::int64_t i, std::int64_t n) HWY_ATTR {
                     const auto sum = hn::Add(hn::Load(d, block + i), load_upto(d, row + i, n));
                     hn::Store(sum, d, block + i);
                   });
                   if (++pending == kDepth) flush();
                 }
               });
  flush();
  for (std::int64_t i = 0; i < count; ++i)
    y[i] = static_cast<Out>(static_cast<Wide<Out>>(total[i]));
}

void run_sum(const KernelArguments& arguments) {
  const TensorView& x = arguments.inputs[0];
  const TensorView& y = arguments.outputs[0];
  const Split s = split(x, arguments.attributes.integer("axes"));
  const bool columns = s.outputs > 1 && s.kept.inner_strides()[0] == 1;
  const std::int64_t chunk =
      columns ? kColumns : std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(1, s.terms));
  with_float(x.dtype, [&](auto from) HWY_ATTR {
    with_float(y.dtype, [&](auto to) HWY_ATTR {
      using T = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      for_each_chunk(
          arguments.context, s.outputs, chunk, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
            if (!columns) return sum_rows(s, x.as<T>(), y.as<Out>(), begin, end);
            for_each_run(s.kept, begin, end,
                         [&](std::int64_t first, std::int64_t count, const auto& at) HWY_ATTR {
                           sum_columns(s, x.as<T>() + at[0], y.as<Out>() + first, count);
                         });
          });
    });
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_sum);
namespace kernels {
void sum(const KernelArguments& arguments) { HWY_DYNAMIC_DISPATCH(run_sum)(arguments); }
}  // namespace kernels
}  // namespace ashlar
#endif
