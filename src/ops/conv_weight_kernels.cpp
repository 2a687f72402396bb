// The gradient of a convolution by its weight. Each task sums a few of its elements over all
// pixels, in their order, so nothing is shared and no partial sums are kept.
#include "ops/conv_kernels.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/conv_weight_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr int kRows = 8;                     // of the weight matrix, summed together
constexpr std::int64_t kPixelsPerSum = 512;  // about; then the sum is added to the total

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <typename T>
struct Problem {
  const T* x;
  const T* dy;
  std::int64_t samples, height, width, channels;
  std::int64_t out_height, out_width, out_channels;
  std::int64_t taps_high, taps_wide, stride, padding;
  DType dtype;

  /// The weights of one row of taps: (b, channel) is contiguous in x for every pixel.
  std::int64_t run() const { return taps_wide * channels; }
};

/// Elements [first, first + rows) of a run of taps, for columns from `column` on.
struct Block {
  std::int64_t tap_row, first, rows, column;
};

/// The first n of a vector, zeros behind them; reads nothing further.
template <class D, typename T>
HWY_INLINE hn::Vec<D> load_some(D d, const T* p, std::int64_t n) {
  if (n == static_cast<std::int64_t>(hn::Lanes(d))) return load(d, p);
#if HWY_TARGET <= HWY_AVX2
  if constexpr (std::is_same_v<hn::TFromD<D>, T>)
    return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(n)), d, p);
#endif
  return load_first(d, p, n);
}

template <typename T, int Vectors>
class WeightSums {
 public:
  using D = WideTag<T>;
  using Vector = hn::Vec<D>;

  HWY_INLINE WeightSums(const Problem<T>& problem, Block block) : p_(problem), block_(block) {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
    for (int v = 0; v < Vectors; ++v)
      used_[v] = std::min(lanes, p_.out_channels - block.column - v * lanes);
    if (block.rows < kRows) return;
    const std::int64_t low = block.first / p_.channels,
                       high = (block.first + kRows - 1) / p_.channels;
    const std::int64_t after = p_.width - 1 + p_.padding - high;
    begin_ =
        std::min(ceil_div(std::max<std::int64_t>(p_.padding - low, 0), p_.stride), p_.out_width);
    end_ = after < 0 ? begin_ : std::clamp(after / p_.stride + 1, begin_, p_.out_width);
  }

  /// Calls store(row, vector, sum, used) for the rows of the block.
  template <class Store>
  HWY_INLINE void run(const Store& store) {
    Matrix total, sums;
    clear(total);
    clear(sums);
    const std::int64_t flush =
        std::max<std::int64_t>(1, kPixelsPerSum / (p_.out_height * p_.out_width));
    for (std::int64_t sample = 0; sample < p_.samples; ++sample) {
      for (std::int64_t i = 0; i < p_.out_height; ++i) {
        const std::int64_t row = i * p_.stride - p_.padding + block_.tap_row;
        if (0 <= row && row < p_.height)
          add_row((sample * p_.height + row) * p_.width,
                  (sample * p_.out_height + i) * p_.out_width, sums);
      }
      if ((sample + 1) % flush != 0 && sample + 1 != p_.samples) continue;
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < Vectors; ++v) total[r][v] = hn::Add(total[r][v], sums[r][v]);
      clear(sums);
    }
    for (int r = 0; r < block_.rows; ++r)
      for (int v = 0; v < Vectors; ++v) store(r, v, total[r][v], used_[v]);
  }

 private:
  using Matrix = Vector[kRows][Vectors];

  HWY_INLINE static void clear(Matrix& matrix) {
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < Vectors; ++v) matrix[r][v] = hn::Zero(D());
  }

  /// The pixels of one row of the result; `x` and `dy` are the numbers of the rows' first pixels.
  HWY_INLINE void add_row(std::int64_t x, std::int64_t dy, Matrix& sums) {
    const T* in = p_.x + x * p_.channels;
    const T* out = p_.dy + dy * p_.out_channels + block_.column;
    for (std::int64_t j = 0; j < p_.out_width; ++j, out += p_.out_channels) {
      const std::int64_t first = (j * p_.stride - p_.padding) * p_.channels + block_.first;
      if (begin_ <= j && j < end_) {
        add([&](int r) HWY_ATTR { return in[first + r]; }, out, sums);
      } else {
        const std::int64_t from = std::max<std::int64_t>(0, -first);
        const std::int64_t to = std::min(block_.rows, p_.width * p_.channels - first);
        add([&](int r) HWY_ATTR { return from <= r && r < to ? in[first + r] : T(0.0F); }, out,
            sums);
      }
    }
  }

  template <class Value>
  HWY_INLINE void add(const Value& x, const T* dy, Matrix& sums) {
    const D d;
    Vector g[Vectors];
    for (int v = 0; v < Vectors; ++v)
      g[v] = load_some(d, dy + v * static_cast<std::int64_t>(hn::Lanes(d)), used_[v]);
    for (int r = 0; r < kRows; ++r) {
      const auto factor = hn::Set(d, static_cast<Wide<T>>(x(r)));
      for (int v = 0; v < Vectors; ++v) sums[r][v] = hn::MulAdd(factor, g[v], sums[r][v]);
    }
  }

  const Problem<T>& p_;
  Block block_;
  std::int64_t begin_ = 0, end_ = 0;  // pixels of a row that need no check: all taps are inside
  std::int64_t used_[Vectors];
};

/// @param out of type T or Wide<T>
template <typename T, int Vectors>
void sum_block(const Problem<T>& problem, Block block, const TensorView& out) {
  const WideTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t first =
      (block.tap_row * problem.run() + block.first) * problem.out_channels + block.column;
  WeightSums<T, Vectors>(problem, block)
      .run([&](int r, int v, auto sum, std::int64_t used) HWY_ATTR {
        const std::int64_t to = first + r * problem.out_channels + v * lanes;
        if (out.dtype == problem.dtype)
          store_upto(d, sum, out.as<T>() + to, used);
        else
          store_upto(d, sum, out.as<Wide<T>>() + to, used);
      });
}

template <typename T>
void sum_all(const RunContext& context, const Problem<T>& problem, const TensorView& out) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(WideTag<T>()));
  const std::int64_t blocks = ceil_div(problem.run(), kRows);
  const std::int64_t panels = ceil_div(problem.out_channels, 2 * lanes);
  for_each_task(context, problem.taps_high * blocks * panels, [&](std::int64_t task) HWY_ATTR {
    const std::int64_t first = task / panels % blocks * kRows;
    const Block block{task / panels / blocks, first,
                      std::min<std::int64_t>(kRows, problem.run() - first),
                      task % panels * 2 * lanes};
    if (problem.out_channels - block.column > lanes)
      sum_block<T, 2>(problem, block, out);
    else
      sum_block<T, 1>(problem, block, out);
  });
}

void run_weight_gradient(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &dy = a.inputs[1], &dweight = a.outputs[0];
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const Problem<T> problem{x.as<T>(),
                             dy.as<T>(),
                             x.shape[0],
                             x.shape[1],
                             x.shape[2],
                             x.shape[3],
                             dy.shape[1],
                             dy.shape[2],
                             dy.shape[3],
                             dweight.shape[0],
                             dweight.shape[1],
                             a.attributes.integer("stride"),
                             a.attributes.integer("padding"),
                             x.dtype};
    sum_all(a.context, problem, dweight);
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_weight_gradient);

namespace kernels {
void conv2d_weight_gradient(const KernelArguments& a) {
  HWY_DYNAMIC_DISPATCH(run_weight_gradient)(a);
}
}  // namespace kernels
}  // namespace ashlar
#endif
