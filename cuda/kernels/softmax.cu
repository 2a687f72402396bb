// Softmax and its backward; a team of threads per row.
#include "cuda/kernels/host.hpp"
#include "cuda/kernels/softmax.hpp"

namespace ashlar::cuda {
namespace {

template <int threads, typename T>
__global__ void softmax_rows(const T* x, std::int64_t rows, std::int64_t n, T* y) {
  const std::int64_t row = team_row<threads>(), at = row * n;
  if (row >= rows) return;
  const RowSum total = sum_of_exponentials<threads>(x + at, n);
  const float factor = 1.0F / total.sum;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v = load_pack(x + at + i, left);
    for (float& element : v.at) element = std::exp(element - total.most) * factor;
    store_pack(v, y + at + i, left);
  });
}

/// dx = y (dy - sum(y dy)).
template <int threads, typename T>
__global__ void softmax_gradients(const T* y, const T* dy, std::int64_t rows, std::int64_t n,
                                  T* dx) {
  const std::int64_t row = team_row<threads>(), at = row * n;
  if (row >= rows) return;
  float part = 0;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    const Pack v = load_pack(y + at + i, left), g = load_pack(dy + at + i, left);
    for (int k = 0; k < kPack; ++k) part = std::fma(v.at[k], g.at[k], part);
  });
  const float total = join_team<threads>(part, Add());
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v = load_pack(y + at + i, left);
    const Pack g = load_pack(dy + at + i, left);
    for (int k = 0; k < kPack; ++k) v.at[k] *= g.at[k] - total;
    store_pack(v, dx + at + i, left);
  });
}

}  // namespace

void softmax(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  if (rows == 0) return;
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_team(n, [&](auto threads) {
      launch(grid_of_teams<threads>(rows), dim3(kBlock), 0, a.context.stream,
             softmax_rows<threads, T>, x.as<const T>(), rows, n, a.outputs[0].as<T>());
    });
  });
}

void softmax_backward(const KernelArguments& a) {
  const TensorView& y = a.inputs[0];
  const std::int64_t n = y.shape[-1], rows = y.elements() / n;
  if (rows == 0) return;
  with_float(y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_team(n, [&](auto threads) {
      launch(grid_of_teams<threads>(rows), dim3(kBlock), 0, a.context.stream,
             softmax_gradients<threads, T>, y.as<const T>(), a.inputs[1].as<const T>(), rows, n,
             a.outputs[0].as<T>());
    });
  });
}

}  // namespace ashlar::cuda
