#include "ops/conv_kernels.hpp"

#include "ashlar/memory_resource.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/conv_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr int kPixels = 6;                          // computed together
constexpr std::int64_t kProductsPerTask = 1 << 20;  // about
constexpr std::int64_t kColumnsPadded = 16;  // packed weights have a multiple: the widest vector

template <typename T>
using Columns = hn::CappedTag<Wide<T>, kColumnsPadded>;

/// What is read: pixel (i, j) of the result and tap (a, b) see pixel (i stride - top + a, j stride
/// - left + b) / spread where that is whole and inside.
struct Window {
  std::int64_t height, width, channels;              // of what is read
  std::int64_t out_height, out_width, out_channels;  // of what is written
  std::int64_t taps_high, taps_wide;
  std::int64_t stride, spread, top, left;

  std::int64_t depth() const { return taps_high * taps_wide * channels; }
  std::int64_t out_pixels() const { return out_height * out_width; }
};

/// Weights as kernels read them: panels of two vectors of columns (the last may have one), each
/// depth x columns.
template <typename T, class Source>
void pack(const RunContext& context, const Window& w, const Source& source, Wide<T>* packed) {
  const Columns<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t columns = align_up(w.out_channels, kColumnsPadded);
  for_each_task(context, w.taps_high * w.taps_wide, [&](std::int64_t tap) {
    for (std::int64_t first = 0; first < columns; first += 2 * lanes) {
      const std::int64_t width = std::min(2 * lanes, columns - first);
      Wide<T>* out = packed + first * w.depth() + tap * w.channels * width;
      for (std::int64_t channel = 0; channel < w.channels; ++channel, out += width) {
        for (std::int64_t i = 0; i < width; ++i) {
          const bool used = first + i < w.out_channels;
          out[i] = used ? static_cast<Wide<T>>(source(tap, channel, first + i)) : Wide<T>{0};
        }
      }
    }
  });
}

/// kPixels sums, of a panel's columns each.
template <typename T, int Vectors>
struct Sums {
  using Vector = hn::Vec<Columns<T>>;
  Vector sums[kPixels][Vectors];

  /// sums += rows (kPixels x depth) x panel (depth x columns)
  HWY_INLINE void add(const T* const* rows, const Wide<T>* panel, std::int64_t depth) {
    const Columns<T> d;
    const std::size_t lanes = hn::Lanes(d);
    for (std::int64_t k = 0; k < depth; ++k) {
      Vector weights[Vectors];
      for (int v = 0; v < Vectors; ++v) weights[v] = hn::Load(d, panel + v * lanes);
      panel += Vectors * lanes;
      for (int p = 0; p < kPixels; ++p) {
        const auto x = hn::Set(d, static_cast<Wide<T>>(rows[p][k]));
        for (int v = 0; v < Vectors; ++v) sums[p][v] = hn::MulAdd(x, weights[v], sums[p][v]);
      }
    }
  }
};

/// A pixel of the result: its sample, and where its window begins.
template <typename T>
struct Pixel {
  const T* sample;
  std::int64_t top, left;

  /// Null outside.
  HWY_INLINE const T* tap(const Window& w, std::int64_t a, std::int64_t b) const {
    std::int64_t row = top + a, column = left + b;
    if (row < 0 || column < 0) return nullptr;
    if (w.spread > 1) {
      if (row % w.spread != 0 || column % w.spread != 0) return nullptr;
      row /= w.spread;
      column /= w.spread;
    }
    if (row >= w.height || column >= w.width) return nullptr;
    return sample + (row * w.width + column) * w.channels;
  }
  HWY_INLINE bool inside(const Window& w) const {
    return w.spread == 1 && top >= 0 && left >= 0 && top + w.taps_high <= w.height &&
           left + w.taps_wide <= w.width;
  }
};

template <typename T>
struct Operands {
  Window window;
  std::int64_t pixels;  // of the result, in all samples
  const T* in;
  const T* bias;  // may be null
  const T* zeros;
  const Wide<T>* packed;
  T* out;
};

/// Columns [first, first + Vectors x lanes) of pixels [begin, begin + kPixels), or up to the last.
template <typename T, int Vectors>
HWY_INLINE void convolve(const Operands<T>& o, std::int64_t begin, std::int64_t first) {
  const Columns<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const Window& w = o.window;
  Pixel<T> pixels[kPixels];
  bool inside = true;
  for (int p = 0; p < kPixels; ++p) {
    const std::int64_t pixel = std::min(begin + p, o.pixels - 1);
    const std::int64_t sample = pixel / w.out_pixels(), row = pixel / w.out_width % w.out_height;
    pixels[p] = {o.in + sample * w.height * w.width * w.channels, row * w.stride - w.top,
                 pixel % w.out_width * w.stride - w.left};
    inside = inside && pixels[p].inside(w);
  }
  Sums<T, Vectors> sums;
  for (int v = 0; v < Vectors; ++v) {
    const std::int64_t used =
        std::clamp<std::int64_t>(w.out_channels - first - v * lanes, 0, lanes);
    const auto bias = o.bias == nullptr || used == 0
                          ? hn::Zero(d)
                          : load_upto(d, o.bias + first + v * lanes, used);
    for (int p = 0; p < kPixels; ++p) sums.sums[p][v] = bias;
  }
  const Wide<T>* panel = o.packed + first * w.depth();
  const std::int64_t tap_size = w.channels * Vectors * lanes;
  const T* rows[kPixels];
  for (std::int64_t a = 0; a < w.taps_high; ++a) {
    if (inside) {
      for (int p = 0; p < kPixels; ++p)
        rows[p] = pixels[p].sample + ((pixels[p].top + a) * w.width + pixels[p].left) * w.channels;
      sums.add(rows, panel, w.taps_wide * w.channels);
      panel += w.taps_wide * tap_size;
      continue;
    }
    for (std::int64_t b = 0; b < w.taps_wide; ++b, panel += tap_size) {
      bool any = false;
      for (int p = 0; p < kPixels; ++p) {
        const T* row = pixels[p].tap(w, a, b);
        any = any || row != nullptr;
        rows[p] = row == nullptr ? o.zeros : row;
      }
      if (any) sums.add(rows, panel, w.channels);
    }
  }
  const std::int64_t count = std::min<std::int64_t>(kPixels, o.pixels - begin);
  for (int p = 0; p < count; ++p) {
    for (int v = 0; v < Vectors; ++v) {
      const std::int64_t used = std::min(w.out_channels - first - v * lanes, lanes);
      if (used > 0)
        store_upto(d, sums.sums[p][v], o.out + (begin + p) * w.out_channels + first + v * lanes,
                   used);
    }
  }
}

template <typename T>
void convolve_all(const RunContext& context, const Operands<T>& o) {
  const Columns<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const Window& w = o.window;
  const std::int64_t block = kPixels * w.depth() * w.out_channels;
  const std::int64_t blocks = std::max<std::int64_t>(1, kProductsPerTask / block);
  for_each_chunk(context, o.pixels, blocks * kPixels,
                 [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                   const std::int64_t columns = align_up(w.out_channels, lanes);
                   for (std::int64_t first = 0; first < columns; first += 2 * lanes) {
                     const bool two = align_up(w.out_channels, kColumnsPadded) - first > lanes;
                     for (std::int64_t p = begin; p < end; p += kPixels)
                       two ? convolve<T, 2>(o, p, first) : convolve<T, 1>(o, p, first);
                   }
                 });
}

/// The memory of conv2d_workspace().
template <typename T>
struct Workspace {
  Wide<T>* packed;
  T* zeros;

  Workspace(std::byte* memory, const Window& w)
      : packed(reinterpret_cast<Wide<T>*>(memory)),
        zeros(reinterpret_cast<T*>(packed + w.depth() * align_up(w.out_channels, kColumnsPadded))) {
    std::fill(zeros, zeros + w.channels, T(0.0F));
  }
};

void run_conv2d(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &weight = a.inputs[1], &y = a.outputs[0];
  if (y.elements() == 0) return;
  const std::int64_t padding = a.attributes.integer("padding");
  const Window w{x.shape[1],
                 x.shape[2],
                 x.shape[3],
                 y.shape[1],
                 y.shape[2],
                 y.shape[3],
                 weight.shape[0],
                 weight.shape[1],
                 a.attributes.integer("stride"),
                 1,
                 padding,
                 padding};
  with_float(x.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const Workspace<T> space(a.workspace, w);
    const T* weights = weight.as<T>();
    pack<T>(
        a.context, w,
        [&](std::int64_t tap, std::int64_t in, std::int64_t out) {
          return weights[(tap * w.channels + in) * w.out_channels + out];
        },
        space.packed);
    const T* bias = a.inputs[2].data == nullptr ? nullptr : a.inputs[2].as<T>();
    convolve_all<T>(a.context, {w, y.elements() / y.shape[3], x.as<T>(), bias, space.zeros,
                                space.packed, y.as<T>()});
  });
}

/// A convolution of dy, `stride` apart, with the weight turned by half a turn.
void run_input_gradient(const KernelArguments& a) {
  const TensorView &dy = a.inputs[0], &weight = a.inputs[1], &dx = a.outputs[0];
  if (dx.elements() == 0) return;
  const std::int64_t padding = a.attributes.integer("padding");
  const std::int64_t high = weight.shape[0], wide = weight.shape[1];
  const Window w{dy.shape[1],
                 dy.shape[2],
                 dy.shape[3],
                 dx.shape[1],
                 dx.shape[2],
                 dx.shape[3],
                 high,
                 wide,
                 1,
                 a.attributes.integer("stride"),
                 high - 1 - padding,
                 wide - 1 - padding};
  with_float(dy.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const Workspace<T> space(a.workspace, w);
    const T* weights = weight.as<T>();
    pack<T>(
        a.context, w,
        [&](std::int64_t tap, std::int64_t in, std::int64_t out) {
          return weights[((high * wide - 1 - tap) * w.out_channels + out) * w.channels + in];
        },
        space.packed);
    convolve_all<T>(a.context, {w, dx.elements() / dx.shape[3], dy.as<T>(), nullptr, space.zeros,
                                space.packed, dx.as<T>()});
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_conv2d);
HWY_EXPORT(run_input_gradient);

namespace kernels {
void conv2d(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_conv2d)(a); }
void conv2d_input_gradient(const KernelArguments& a) {
  HWY_DYNAMIC_DISPATCH(run_input_gradient)(a);
}
std::int64_t conv2d_workspace(const TensorType& weight, std::int64_t read, std::int64_t written) {
  const std::int64_t wide = weight.dtype == DType::f64 ? 8 : 4;
  const std::int64_t depth = weight.shape[0] * weight.shape[1] * read;
  return depth * align_up(written, 16) * wide + read * size_of(weight.dtype);
}
}  // namespace kernels
}  // namespace ashlar
#endif
