// Layer norm (Ba et al., arXiv:1607.06450), alone and fused with the residual addition; a team of
// threads per row.
#include <cmath>

#include "cuda/kernels/columns.hpp"
#include "ops/layer_norm_kernels.hpp"

namespace ashlar::cuda {
namespace {

/// Operands of forward. `residual` may be null; then `sum` is x itself.
template <typename T>
struct Forward {
  const T *x, *residual, *weight, *bias;
  T *sum, *y;
  float *mean, *rstd;
  float epsilon;
};

/// sum = x + residual, rounded; returns this thread's part of its total.
template <int threads, typename T>
__device__ float add_residual(const Forward<T>& o, std::int64_t at, std::int64_t n) {
  float total = 0;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v = load_pack(o.x + at + i, left);
    if (o.residual != nullptr) {
      const Pack r = load_pack(o.residual + at + i, left);
      for (int k = 0; k < kPack; ++k)
        v.at[k] = static_cast<float>(static_cast<T>(v.at[k] + r.at[k]));
      store_pack(v, o.sum + at + i, left);
    }
    for (const float element : v.at) total += element;
  });
  return total;
}

template <int threads, typename T>
__global__ void normalise(Forward<T> o, std::int64_t rows, std::int64_t n) {
  const std::int64_t row = team_row<threads>(), at = row * n;
  if (row >= rows) return;
  const T* sum = o.residual == nullptr ? o.x : o.sum;
  const auto count = static_cast<float>(n);
  const float mean = join_team<threads>(add_residual<threads>(o, at, n), Add()) / count;
  float squares = 0;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    const Pack v = load_pack(sum + at + i, left, mean);
    for (const float element : v.at) squares = std::fma(element - mean, element - mean, squares);
  });
  const float variance = join_team<threads>(squares, Add()) / count;
  const float rstd = 1.0F / std::sqrt(variance + o.epsilon);
  if (team_thread<threads>() == 0) {
    o.mean[row] = mean;
    o.rstd[row] = rstd;
  }
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v = load_pack(sum + at + i, left);
    const Pack w = load_pack(o.weight + i, left), b = load_pack(o.bias + i, left);
    for (int k = 0; k < kPack; ++k) v.at[k] = std::fma((v.at[k] - mean) * rstd, w.at[k], b.at[k]);
    store_pack(v, o.y + at + i, left);
  });
}

template <typename T>
void forward(const KernelArguments& a, Forward<T> o) {
  const std::int64_t n = a.inputs[0].shape[-1], rows = a.inputs[0].elements() / n;
  if (rows == 0) return;
  o.epsilon = static_cast<float>(a.attributes.number("epsilon"));
  with_team(n, [&](auto threads) {
    launch(grid_of_teams<threads>(rows), dim3(kBlock), 0, a.context.stream, normalise<threads, T>,
           o, rows, n);
  });
}

template <typename T>
struct Backward {
  const T *x, *weight;
  const float *mean, *rstd;
  const T *dy, *dsum;  // dsum may be null
  T* dx;
};

/// dx = rstd (g - mean(g) - xhat mean(g xhat)) + dsum, with g = dy weight, xhat = (x - mean) rstd.
template <int threads, typename T>
__global__ void row_gradient(Backward<T> o, std::int64_t rows, std::int64_t n) {
  const std::int64_t row = team_row<threads>(), at = row * n;
  if (row >= rows) return;
  const float mean = o.mean[row], rstd = o.rstd[row];
  float total = 0, product = 0;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    const Pack x = load_pack(o.x + at + i, left), dy = load_pack(o.dy + at + i, left);
    const Pack w = load_pack(o.weight + i, left);
    for (int k = 0; k < kPack; ++k) {
      const float g = dy.at[k] * w.at[k];
      total += g;
      product = std::fma(g, (x.at[k] - mean) * rstd, product);
    }
  });
  const auto count = static_cast<float>(n);
  const float mean_g = join_team<threads>(total, Add()) / count;
  const float mean_gx = join_team<threads>(product, Add()) / count;
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    const Pack x = load_pack(o.x + at + i, left), dy = load_pack(o.dy + at + i, left);
    const Pack w = load_pack(o.weight + i, left);
    const Pack before = o.dsum == nullptr ? Pack() : load_pack(o.dsum + at + i, left);
    Pack dx;
    for (int k = 0; k < kPack; ++k) {
      const float g = dy.at[k] * w.at[k], xhat = (x.at[k] - mean) * rstd;
      dx.at[k] = std::fma(std::fma(-xhat, mean_gx, g - mean_g), rstd, before.at[k]);
    }
    store_pack(dx, o.dx + at + i, left);
  });
}

/// Adds dy xhat and dy of a pack.
template <typename T>
struct ParameterTerms {
  const T* x;
  const float *mean, *rstd;
  const T* dy;
  std::int64_t n;
  __device__ void operator()(std::int64_t row, std::int64_t column, std::int64_t left,
                             Pack (&sums)[2]) const {
    const std::int64_t at = row * n + column;
    const Pack v = load_pack(x + at, left), g = load_pack(dy + at, left);
    const float centre = mean[row], scale = rstd[row];
    for (int k = 0; k < kPack; ++k) {
      sums[0].at[k] = std::fma(g.at[k], (v.at[k] - centre) * scale, sums[0].at[k]);
      sums[1].at[k] += g.at[k];
    }
  }
};

}  // namespace

void layer_norm(const KernelArguments& a) {
  with_float(a.inputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    forward<T>(a, {.x = a.inputs[0].as<T>(),
                   .residual = nullptr,
                   .weight = a.inputs[1].as<T>(),
                   .bias = a.inputs[2].as<T>(),
                   .sum = nullptr,
                   .y = a.outputs[0].as<T>(),
                   .mean = a.outputs[1].as<float>(),
                   .rstd = a.outputs[2].as<float>(),
                   .epsilon = 0});
  });
}

void add_layer_norm(const KernelArguments& a) {
  with_float(a.inputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    forward<T>(a, {.x = a.inputs[0].as<T>(),
                   .residual = a.inputs[1].as<T>(),
                   .weight = a.inputs[2].as<T>(),
                   .bias = a.inputs[3].as<T>(),
                   .sum = a.outputs[0].as<T>(),
                   .y = a.outputs[1].as<T>(),
                   .mean = a.outputs[2].as<float>(),
                   .rstd = a.outputs[3].as<float>(),
                   .epsilon = 0});
  });
}

void layer_norm_backward(const KernelArguments& a) {
  const std::int64_t n = a.inputs[0].shape[-1], rows = a.inputs[0].elements() / n;
  if (rows == 0) return;
  with_float(a.inputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Backward<T> o{a.inputs[0].as<T>(),     a.inputs[1].as<T>(), a.inputs[2].as<float>(),
                        a.inputs[3].as<float>(), a.inputs[4].as<T>(), a.inputs[5].as<T>(),
                        a.outputs[0].as<T>()};
    with_team(n, [&](auto threads) {
      launch(grid_of_teams<threads>(rows), dim3(kBlock), 0, a.context.stream,
             row_gradient<threads, T>, o, rows, n);
    });
  });
}

void layer_norm_parameters(const KernelArguments& a) {
  const TensorView& x = a.inputs[0];
  const std::int64_t n = x.shape[-1], rows = x.elements() / n;
  with_float(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const ParameterTerms<T> terms{x.as<T>(), a.inputs[1].as<float>(), a.inputs[2].as<float>(),
                                  a.inputs[3].as<T>(), n};
    sum_columns<2>(a.context.stream, terms, rows, kernels::kRowsPerPartial, n, a.workspace,
                   a.outputs);
  });
}

}  // namespace ashlar::cuda
