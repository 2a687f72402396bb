#include "ops/pool_kernels.hpp"

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/pool_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kChannels = 64;  // worked on together
constexpr std::int64_t kPixelsPerTask = 256;

/// What is pooled and the result.
struct Pooling {
  std::int64_t kernel, stride, samples, height, width, channels, out_height, out_width;

  Pooling(const KernelArguments& a, const TensorView& x, const TensorView& y)
      : kernel(a.attributes.integer("kernel")),
        stride(a.attributes.integer("stride")),
        samples(x.shape[0]),
        height(x.shape[1]),
        width(x.shape[2]),
        channels(x.shape[3]),
        out_height(y.shape[1]),
        out_width(y.shape[2]) {}

  /// Of the x element that is `tap` in the window of pixel (sample, i, j), channel 0.
  std::int64_t offset(std::int64_t sample, std::int64_t i, std::int64_t j, std::int64_t tap) const {
    const std::int64_t row = i * stride + tap / kernel, column = j * stride + tap % kernel;
    return ((sample * height + row) * width + column) * channels;
  }
};

/// Calls body(sample, i, j, channel, n) for blocks of n channels of all pixels of (samples, rows,
/// columns).
template <class Body>
void for_each_block(const RunContext& context, const Pooling& p, std::int64_t rows,
                    std::int64_t columns, const Body& body) {
  for_each_chunk(context, p.samples * rows * columns, kPixelsPerTask,
                 [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                   for (std::int64_t pixel = begin; pixel < end; ++pixel)
                     for (std::int64_t c = 0; c < p.channels; c += kChannels)
                       body(pixel / columns / rows, pixel / columns % rows, pixel % columns, c,
                            std::min(kChannels, p.channels - c));
                 });
}

/// The windows along one axis that hold a position.
struct Windows {
  std::int64_t begin, end;
  Windows(const Pooling& p, std::int64_t position, std::int64_t count)
      : begin(position < p.kernel ? 0 : (position - p.kernel) / p.stride + 1),
        end(std::min(position / p.stride + 1, count)) {}
};

template <typename T>
HWY_INLINE void take_larger(const T* x, std::int32_t tap, std::int64_t n, Wide<T>* best,
                            std::int32_t* which) {
  for (std::int64_t c = 0; c < n; ++c) {
    const Wide<T> v = static_cast<Wide<T>>(x[c]);
    const bool larger = v > best[c] || v != v;
    best[c] = larger ? v : best[c];
    which[c] = larger ? tap : which[c];
  }
}

void run_max_pool(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  const Pooling p(a, x, y);
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_block(a.context, p, p.out_height, p.out_width,
                   [&](std::int64_t sample, std::int64_t i, std::int64_t j, std::int64_t channel,
                       std::int64_t n) HWY_ATTR {
                     Wide<T> best[kChannels];
                     std::int32_t which[kChannels] = {};
                     const T* first = x.as<T>() + p.offset(sample, i, j, 0) + channel;
                     for (std::int64_t c = 0; c < n; ++c) best[c] = static_cast<Wide<T>>(first[c]);
                     for (std::int64_t tap = 1; tap < p.kernel * p.kernel; ++tap)
                       take_larger(x.as<T>() + p.offset(sample, i, j, tap) + channel,
                                   static_cast<std::int32_t>(tap), n, best, which);
                     const std::int64_t out =
                         ((sample * p.out_height + i) * p.out_width + j) * p.channels + channel;
                     for (std::int64_t c = 0; c < n; ++c) {
                       y.as<T>()[out + c] = static_cast<T>(best[c]);
                       a.outputs[1].as<std::uint8_t>()[out + c] =
                           static_cast<std::uint8_t>(which[c]);
                     }
                   });
  });
}

void run_pick(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  const Pooling p(a, x, y);
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_block(a.context, p, p.out_height, p.out_width,
                   [&](std::int64_t sample, std::int64_t i, std::int64_t j, std::int64_t channel,
                       std::int64_t n) HWY_ATTR {
                     const std::int64_t out =
                         ((sample * p.out_height + i) * p.out_width + j) * p.channels + channel;
                     for (std::int64_t c = 0; c < n; ++c) {
                       const std::int64_t tap = a.inputs[1].as<const std::uint8_t>()[out + c];
                       y.as<T>()[out + c] = x.as<T>()[p.offset(sample, i, j, tap) + channel + c];
                     }
                   });
  });
}

/// dx = the sum over all windows that hold a pixel, in their order, of weight(dy, its offset, tap).
template <typename T, class Add>
void gather_windows(const KernelArguments& a, const Add& add) {
  const TensorView &dy = a.inputs[0], &dx = a.outputs[0];
  const Pooling p(a, dx, dy);
  for_each_block(
      a.context, p, p.height, p.width,
      [&](std::int64_t sample, std::int64_t row, std::int64_t column, std::int64_t channel,
          std::int64_t n) HWY_ATTR {
        Wide<T> sum[kChannels] = {};
        const Windows rows(p, row, p.out_height), columns(p, column, p.out_width);
        for (std::int64_t i = rows.begin; i < rows.end; ++i)
          for (std::int64_t j = columns.begin; j < columns.end; ++j) {
            const std::int64_t tap = (row - i * p.stride) * p.kernel + column - j * p.stride;
            const std::int64_t from =
                ((sample * p.out_height + i) * p.out_width + j) * p.channels + channel;
            add(dy.as<T>() + from, from, tap, n, sum);
          }
        T* out = dx.as<T>() + ((sample * p.height + row) * p.width + column) * p.channels + channel;
        for (std::int64_t c = 0; c < n; ++c) out[c] = static_cast<T>(sum[c]);
      });
}

void run_spread(const KernelArguments& a) {
  with_float(a.inputs[0].dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const auto* chosen = a.inputs[1].as<const std::uint8_t>();
    gather_windows<T>(a, [&](const T* dy, std::int64_t from, std::int64_t tap, std::int64_t n,
                             Wide<T>* sum) HWY_ATTR {
      for (std::int64_t c = 0; c < n; ++c)
        sum[c] += chosen[from + c] == tap ? static_cast<Wide<T>>(dy[c]) : Wide<T>{0};
    });
  });
}

void run_average_pool(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  const Pooling p(a, x, y);
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const Wide<T> share = Wide<T>{1} / static_cast<Wide<T>>(p.kernel * p.kernel);
    for_each_block(a.context, p, p.out_height, p.out_width,
                   [&](std::int64_t sample, std::int64_t i, std::int64_t j, std::int64_t channel,
                       std::int64_t n) HWY_ATTR {
                     Wide<T> sum[kChannels] = {};
                     for (std::int64_t tap = 0; tap < p.kernel * p.kernel; ++tap) {
                       const T* v = x.as<T>() + p.offset(sample, i, j, tap) + channel;
                       for (std::int64_t c = 0; c < n; ++c) sum[c] += static_cast<Wide<T>>(v[c]);
                     }
                     T* out = y.as<T>() +
                              ((sample * p.out_height + i) * p.out_width + j) * p.channels +
                              channel;
                     for (std::int64_t c = 0; c < n; ++c) out[c] = static_cast<T>(sum[c] * share);
                   });
  });
}

void run_average_spread(const KernelArguments& a) {
  const std::int64_t kernel = a.attributes.integer("kernel");
  with_float(a.inputs[0].dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const Wide<T> share = Wide<T>{1} / static_cast<Wide<T>>(kernel * kernel);
    gather_windows<T>(
        a, [&](const T* dy, std::int64_t, std::int64_t, std::int64_t n, Wide<T>* sum) HWY_ATTR {
          for (std::int64_t c = 0; c < n; ++c) sum[c] += static_cast<Wide<T>>(dy[c]) * share;
        });
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_max_pool);
HWY_EXPORT(run_pick);
HWY_EXPORT(run_spread);
HWY_EXPORT(run_average_pool);
HWY_EXPORT(run_average_spread);

namespace kernels {
void max_pool2d(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_max_pool)(a); }
void max_pool2d_pick(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_pick)(a); }
void max_pool2d_spread(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_spread)(a); }
void average_pool2d(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_average_pool)(a); }
void average_pool2d_spread(const KernelArguments& a) {
  HWY_DYNAMIC_DISPATCH(run_average_spread)(a);
}
}  // namespace kernels
}  // namespace ashlar
#endif
