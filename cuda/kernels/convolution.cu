// Two-dimensional convolution and its gradients, channels last: products of matrices of which one
// is read through windows. A block makes a tile of the result, a thread 4 x 4 of its elements.
#include "cuda/kernels/columns.hpp"
#include "cuda/kernels/host.hpp"

namespace ashlar::cuda {
namespace {

constexpr int kTile = 64;   // rows and columns of a block's tile
constexpr int kDepth = 16;  // of the sums, in shared memory at a time
constexpr int kOwn = 4;     // rows and columns of a thread
constexpr int kAcross = kTile / kOwn;
constexpr std::int64_t kPixelsPerBlock = 4096;  // that one block sums for a gradient of weights
static_assert(kAcross * kAcross == kBlock);

/// Pixel (i, j) of the result and tap (a, b) see pixel (i stride - top + a, j stride - left + b) /
/// spread of what is read, where that is whole and inside.
template <typename T>
struct Windows {
  const T* from;
  std::int64_t height, width, channels;  // of what is read
  std::int64_t out_height, out_width;
  std::int64_t taps_wide, stride, spread, top, left;

  /// Channel and tap are one index, channels fastest. 0 outside.
  __device__ float operator()(std::int64_t pixel, std::int64_t tap_and_channel) const {
    const std::int64_t tap = tap_and_channel / channels, channel = tap_and_channel % channels;
    const std::int64_t i = pixel / out_width % out_height, j = pixel % out_width;
    const std::int64_t row = i * stride - top + tap / taps_wide;
    const std::int64_t column = j * stride - left + tap % taps_wide;
    if (row < 0 || column < 0 || row % spread != 0 || column % spread != 0) return 0;
    if (row / spread >= height || column / spread >= width) return 0;
    const std::int64_t sample = pixel / out_width / out_height;
    const std::int64_t seen = (sample * height + row / spread) * width + column / spread;
    return to_float(from[seen * channels + channel]);
  }
};

/// The same as (tap and channel) x pixels.
template <typename T>
struct Transposed {
  Windows<T> windows;
  __device__ float operator()(std::int64_t tap_and_channel, std::int64_t pixel) const {
    return windows(pixel, tap_and_channel);
  }
};

template <typename T>
struct RowMajor {
  const T* from;
  std::int64_t columns;
  __device__ float operator()(std::int64_t row, std::int64_t column) const {
    return to_float(from[row * columns + column]);
  }
};

/// Weights [taps, written, read] turned by half a turn, as (tap, read) x written.
template <typename T>
struct TurnedWeights {
  const T* from;
  std::int64_t taps, read, written;
  __device__ float operator()(std::int64_t row, std::int64_t column) const {
    const std::int64_t tap = taps - 1 - row / read;
    return to_float(from[(tap * written + column) * read + row % read]);
  }
};

struct Sizes {
  std::int64_t rows, columns, depth;
  std::int64_t depth_per_block;  // block z sums its part of the depth into result z
};

/// result[z] (rows x columns) = left (rows x depth) x right (depth x columns) + bias (columns),
/// added in the order of the depth. `bias` may be null.
template <class Left, class Right, typename T, typename Out>
__global__ void multiply_tiles(Left left, Right right, Sizes e, const T* bias, Out* result) {
  auto& lefts = shared<float[kDepth][kTile], struct LeftTile>();
  auto& rights = shared<float[kDepth][kTile], struct RightTile>();
  const std::int64_t first_row = std::int64_t{blockIdx.x} * kTile;
  const std::int64_t first_column = std::int64_t{blockIdx.y} * kTile;
  const std::int64_t begin = blockIdx.z * e.depth_per_block;
  const std::int64_t end =
      begin + e.depth_per_block < e.depth ? begin + e.depth_per_block : e.depth;
  const int own_row = static_cast<int>(threadIdx.x) / kAcross;
  const int own_column = static_cast<int>(threadIdx.x) % kAcross;
  float sums[kOwn][kOwn] = {};
  for (std::int64_t k = begin; k < end; k += kDepth) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kDepth * kTile; i += kBlock) {
      const int d = i / kTile, at = i % kTile;
      const bool there = k + d < end;
      lefts[d][at] = there && first_row + at < e.rows ? left(first_row + at, k + d) : 0.0F;
      rights[d][at] =
          there && first_column + at < e.columns ? right(k + d, first_column + at) : 0.0F;
    }
    __syncthreads();
    for (int d = 0; d < kDepth; ++d)
      for (int r = 0; r < kOwn; ++r)
        for (int c = 0; c < kOwn; ++c)
          sums[r][c] = std::fma(lefts[d][own_row + r * kAcross],
                                rights[d][own_column + c * kAcross], sums[r][c]);
  }
  for (int r = 0; r < kOwn; ++r)
    for (int c = 0; c < kOwn; ++c) {
      const std::int64_t row = first_row + own_row + r * kAcross;
      const std::int64_t column = first_column + own_column + c * kAcross;
      if (row >= e.rows || column >= e.columns) continue;
      const float added = bias == nullptr ? 0.0F : to_float(bias[column]);
      result[(blockIdx.z * e.rows + row) * e.columns + column] =
          from_float<Out>(sums[r][c] + added);
    }
}

template <class Left, class Right, typename T, typename Out>
void multiply(StreamRef stream, const Left& left, const Right& right, const Sizes& e, const T* bias,
              Out* result) {
  if (e.rows == 0 || e.columns == 0) return;
  const auto parts = e.depth == 0 ? 1 : static_cast<unsigned>(ceil_div(e.depth, e.depth_per_block));
  const dim3 grid(static_cast<unsigned>(ceil_div(e.rows, kTile)),
                  static_cast<unsigned>(ceil_div(e.columns, kTile)), parts);
  launch(grid, dim3(kBlock), 0, stream, multiply_tiles<Left, Right, T, Out>, left, right, e, bias,
         result);
}

std::int64_t pixels_of(const Shape& images) { return images[0] * images[1] * images[2]; }

/// The windows of a convolution of x that makes y.
template <typename T>
Windows<T> windows_of(const KernelArguments& a, const TensorView& x, const Shape& y,
                      std::int64_t taps_wide) {
  const std::int64_t padding = a.attributes.integer("padding");
  return {x.as<const T>(),
          x.shape[1],
          x.shape[2],
          x.shape[3],
          y[1],
          y[2],
          taps_wide,
          a.attributes.integer("stride"),
          1,
          padding,
          padding};
}

std::int64_t parts_of(const Shape& dy) {
  return std::max<std::int64_t>(1, ceil_div(pixels_of(dy), kPixelsPerBlock));
}

}  // namespace

void conv2d(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &weight = a.inputs[1], &y = a.outputs[0];
  const std::int64_t depth = weight.shape[0] * weight.shape[1] * weight.shape[2];
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    multiply(a.context.stream, windows_of<T>(a, x, y.shape, weight.shape[1]),
             RowMajor<T>{weight.as<const T>(), weight.shape[3]},
             {pixels_of(y.shape), y.shape[3], depth, depth}, a.inputs[2].as<const T>(), y.as<T>());
  });
}

void conv2d_input_gradient(const KernelArguments& a) {
  const TensorView &dy = a.inputs[0], &weight = a.inputs[1], &dx = a.outputs[0];
  const std::int64_t high = weight.shape[0], wide = weight.shape[1], read = weight.shape[3];
  const std::int64_t padding = a.attributes.integer("padding"), depth = high * wide * read;
  with_float(dy.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Windows<T> windows{dy.as<const T>(),
                             dy.shape[1],
                             dy.shape[2],
                             dy.shape[3],
                             dx.shape[1],
                             dx.shape[2],
                             wide,
                             1,
                             a.attributes.integer("stride"),
                             high - 1 - padding,
                             wide - 1 - padding};
    multiply(a.context.stream, windows,
             TurnedWeights<T>{weight.as<const T>(), high * wide, read, dx.shape[3]},
             {pixels_of(dx.shape), dx.shape[3], depth, depth}, static_cast<const T*>(nullptr),
             dx.as<T>());
  });
}

std::int64_t conv2d_weight_gradient_workspace(const OpShapes& shapes) {
  const std::int64_t parts = parts_of(shapes.inputs[1].shape);
  return parts == 1 ? 0 : parts * shapes.outputs[0].shape.elements() * size_of(DType::f32);
}

void conv2d_weight_gradient(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &dy = a.inputs[1], &dweight = a.outputs[0];
  const std::int64_t pixels = pixels_of(dy.shape), elements = dweight.elements();
  const Sizes sizes{elements / dy.shape[3], dy.shape[3], pixels, kPixelsPerBlock};
  with_float(x.dtype, [&](auto from) {
    using T = typename decltype(from)::type;
    const Transposed<T> left{windows_of<T>(a, x, dy.shape, dweight.shape[1])};
    const RowMajor<T> right{dy.as<const T>(), dy.shape[3]};
    const T* no_bias = nullptr;
    with_float(dweight.dtype, [&](auto to) {
      using Out = typename decltype(to)::type;
      const std::int64_t parts = parts_of(dy.shape);
      if (parts == 1)
        return multiply(a.context.stream, left, right, sizes, no_bias, dweight.as<Out>());
      auto* partials = reinterpret_cast<float*>(a.workspace);
      multiply(a.context.stream, left, right, sizes, no_bias, partials);
      add_partials<1>(a.context.stream, static_cast<const float*>(partials), parts, elements,
                      a.outputs.first(1));
    });
  });
}

}  // namespace ashlar::cuda
