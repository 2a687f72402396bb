// Pooling and its gradients, channels last; a thread per element of the result.
#include "cuda/kernels/host.hpp"

namespace ashlar::cuda {
namespace {

/// What is pooled and the result.
struct Pooling {
  std::int64_t kernel, stride, height, width, channels, out_height, out_width;

  /// Of the x element that is `tap` in the window of element `out` of y.
  __device__ std::int64_t offset(std::int64_t out, std::int64_t tap) const {
    const std::int64_t pixel = out / channels, sample = pixel / out_width / out_height;
    const std::int64_t row = pixel / out_width % out_height * stride + tap / kernel;
    const std::int64_t column = pixel % out_width * stride + tap % kernel;
    return ((sample * height + row) * width + column) * channels + out % channels;
  }
};

/// The windows along one axis that hold a position.
struct Holding {
  std::int64_t begin, end;
  __device__ Holding(const Pooling& p, std::int64_t position, std::int64_t count)
      : begin(position < p.kernel ? 0 : (position - p.kernel) / p.stride + 1),
        end(position / p.stride + 1 < count ? position / p.stride + 1 : count) {}
};

template <typename T>
__global__ void take_largest(Pooling p, std::int64_t n, const T* x, T* y, std::uint8_t* which) {
  const std::int64_t i = thread_in_grid();
  if (i >= n) return;
  float best = to_float(x[p.offset(i, 0)]);
  std::int64_t chosen = 0;
  for (std::int64_t tap = 1; tap < p.kernel * p.kernel; ++tap) {
    const float v = to_float(x[p.offset(i, tap)]);
    if (!(v > best) && v == v) continue;  // a NaN stays
    best = v;
    chosen = tap;
  }
  y[i] = from_float<T>(best);
  which[i] = static_cast<std::uint8_t>(chosen);
}

template <typename T>
__global__ void take_chosen(Pooling p, std::int64_t n, const T* x, const std::uint8_t* which,
                            T* y) {
  const std::int64_t i = thread_in_grid();
  if (i < n) y[i] = x[p.offset(i, which[i])];
}

template <typename T>
__global__ void average_windows(Pooling p, std::int64_t n, const T* x, T* y) {
  const std::int64_t i = thread_in_grid();
  if (i >= n) return;
  float sum = 0;
  for (std::int64_t tap = 0; tap < p.kernel * p.kernel; ++tap) sum += to_float(x[p.offset(i, tap)]);
  y[i] = from_float<T>(sum * (1.0F / static_cast<float>(p.kernel * p.kernel)));
}

/// dx = the sum over all windows that hold a pixel, in their order: of dy where the window chose
/// it, or of dy's share (`which` null).
template <typename T>
__global__ void spread_windows(Pooling p, std::int64_t n, const T* dy, const std::uint8_t* which,
                               T* dx) {
  const std::int64_t element = thread_in_grid();
  if (element >= n) return;
  const std::int64_t pixel = element / p.channels, sample = pixel / p.width / p.height;
  const std::int64_t row = pixel / p.width % p.height, column = pixel % p.width;
  const Holding rows(p, row, p.out_height), columns(p, column, p.out_width);
  const float share = 1.0F / static_cast<float>(p.kernel * p.kernel);
  float sum = 0;
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    for (std::int64_t j = columns.begin; j < columns.end; ++j) {
      const std::int64_t tap = (row - i * p.stride) * p.kernel + column - j * p.stride;
      const std::int64_t from =
          ((sample * p.out_height + i) * p.out_width + j) * p.channels + element % p.channels;
      if (which == nullptr) {
        sum += to_float(dy[from]) * share;
      } else if (which[from] == tap) {
        sum += to_float(dy[from]);
      }
    }
  dx[element] = from_float<T>(sum);
}

Pooling pooling_of(const KernelArguments& a, const TensorView& x, const TensorView& y) {
  return {a.attributes.integer("kernel"),
          a.attributes.integer("stride"),
          x.shape[1],
          x.shape[2],
          x.shape[3],
          y.shape[1],
          y.shape[2]};
}

/// Calls f(TypeTag, n) where the result has elements.
template <class F>
void for_result(const TensorView& result, const F& f) {
  if (result.elements() == 0) return;
  with_float(result.dtype, [&](auto tag) { f(tag, result.elements()); });
}

void spread(const KernelArguments& a, const std::uint8_t* which) {
  const TensorView &dy = a.inputs[0], &dx = a.outputs[0];
  for_result(dx, [&](auto tag, std::int64_t n) {
    using T = typename decltype(tag)::type;
    launch(grid_of_threads(n), dim3(kBlock), 0, a.context.stream, spread_windows<T>,
           pooling_of(a, dx, dy), n, dy.as<const T>(), which, dx.as<T>());
  });
}

}  // namespace

void max_pool2d(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  for_result(y, [&](auto tag, std::int64_t n) {
    using T = typename decltype(tag)::type;
    launch(grid_of_threads(n), dim3(kBlock), 0, a.context.stream, take_largest<T>,
           pooling_of(a, x, y), n, x.as<const T>(), y.as<T>(), a.outputs[1].as<std::uint8_t>());
  });
}

void max_pool2d_pick(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  for_result(y, [&](auto tag, std::int64_t n) {
    using T = typename decltype(tag)::type;
    launch(grid_of_threads(n), dim3(kBlock), 0, a.context.stream, take_chosen<T>,
           pooling_of(a, x, y), n, x.as<const T>(), a.inputs[1].as<const std::uint8_t>(),
           y.as<T>());
  });
}

void max_pool2d_spread(const KernelArguments& a) {
  spread(a, a.inputs[1].as<const std::uint8_t>());
}

void average_pool2d(const KernelArguments& a) {
  const TensorView &x = a.inputs[0], &y = a.outputs[0];
  for_result(y, [&](auto tag, std::int64_t n) {
    using T = typename decltype(tag)::type;
    launch(grid_of_threads(n), dim3(kBlock), 0, a.context.stream, average_windows<T>,
           pooling_of(a, x, y), n, x.as<const T>(), y.as<T>());
  });
}

void average_pool2d_spread(const KernelArguments& a) { spread(a, nullptr); }

}  // namespace ashlar::cuda
