// Root-mean-square norm (Zhang and Sennrich, arXiv:1910.07467); a team of threads per row.
#include <cmath>

#include "cuda/kernels/columns.hpp"
#include "ops/rms_norm_kernels.hpp"

namespace ashlar::cuda {
namespace {

/// y = x rstd weight.
template <int threads, typename T>
__global__ void normalise(const T* x, const T* weight, float epsilon, std::int64_t rows,
                          std::int64_t n, T* y, float* rstd) {
  const std::int64_t row = team_row<threads>(), at = row * n;
  if (row >= rows) return;
  float squares = 0;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    const Pack v = load_pack(x + at + i, left);
    for (const float element : v.at) squares = std::fma(element, element, squares);
  });
  const float mean = join_team<threads>(squares, Add()) / static_cast<float>(n);
  const float scale = 1.0F / std::sqrt(mean + epsilon);
  if (team_thread<threads>() == 0) rstd[row] = scale;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v = load_pack(x + at + i, left);
    const Pack w = load_pack(weight + i, left);
    for (int k = 0; k < kPack; ++k) v.at[k] = v.at[k] * scale * w.at[k];
    store_pack(v, y + at + i, left);
  });
}

/// dx = rstd (g - xhat mean(g xhat)), with g = dy weight, xhat = x rstd.
template <int threads, typename T>
__global__ void row_gradient(const T* x, const T* weight, const float* rstd, const T* dy,
                             std::int64_t rows, std::int64_t n, T* dx) {
  const std::int64_t row = team_row<threads>(), at = row * n;
  if (row >= rows) return;
  const float scale = rstd[row];
  float product = 0;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    const Pack v = load_pack(x + at + i, left), d = load_pack(dy + at + i, left);
    const Pack w = load_pack(weight + i, left);
    for (int k = 0; k < kPack; ++k) product = std::fma(d.at[k] * w.at[k], v.at[k] * scale, product);
  });
  const float mean = join_team<threads>(product, Add()) / static_cast<float>(n);
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v = load_pack(x + at + i, left);
    const Pack w = load_pack(weight + i, left), d = load_pack(dy + at + i, left);
    for (int k = 0; k < kPack; ++k)
      v.at[k] = std::fma(-v.at[k] * scale, mean, d.at[k] * w.at[k]) * scale;
    store_pack(v, dx + at + i, left);
  });
}

/// Adds dy xhat of a pack.
template <typename T>
struct WeightTerms {
  const T* x;
  const float* rstd;
  const T* dy;
  std::int64_t n;
  __device__ void operator()(std::int64_t row, std::int64_t column, std::int64_t left,
                             Pack (&sums)[1]) const {
    const std::int64_t at = row * n + column;
    const Pack v = load_pack(x + at, left), g = load_pack(dy + at, left);
    const float scale = rstd[row];
    for (int k = 0; k < kPack; ++k)
      sums[0].at[k] = std::fma(g.at[k], v.at[k] * scale, sums[0].at[k]);
  }
};

}  // namespace

void rms_norm(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  if (rows == 0) return;
  const auto epsilon = static_cast<float>(a.attributes.number("epsilon"));
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_team(n, [&](auto threads) {
      launch(grid_of_teams<threads>(rows), dim3(kBlock), 0, a.context.stream, normalise<threads, T>,
             x.as<const T>(), a.inputs[1].as<const T>(), epsilon, rows, n, a.outputs[0].as<T>(),
             a.outputs[1].as<float>());
    });
  });
}

void rms_norm_backward(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  if (rows == 0) return;
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_team(n, [&](auto threads) {
      launch(grid_of_teams<threads>(rows), dim3(kBlock), 0, a.context.stream,
             row_gradient<threads, T>, x.as<const T>(), a.inputs[1].as<const T>(),
             a.inputs[2].as<const float>(), a.inputs[3].as<const T>(), rows, n,
             a.outputs[0].as<T>());
    });
  });
}

void rms_norm_weight(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const WeightTerms<T> terms{x.as<T>(), a.inputs[1].as<float>(), a.inputs[2].as<T>(), n};
    sum_columns<1>(a.context.stream, terms, rows, kernels::kRmsRowsPerPartial, n, a.workspace,
                   a.outputs);
  });
}

}  // namespace ashlar::cuda
