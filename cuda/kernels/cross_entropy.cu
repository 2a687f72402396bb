// Cross-entropy of given logits. Targets below 0 do not count; a target that is not below the
// number of columns makes the loss NaN, as a kernel cannot throw.
#include <cmath>

#include "cuda/kernels/host.hpp"
#include "cuda/kernels/softmax.hpp"

namespace ashlar::cuda {
namespace {

constexpr int kReducers = 1024;  // threads of the one block that adds up rows

/// Targets that count, for all threads of a team.
template <int threads>
__device__ float counted(const std::int32_t* targets, std::int64_t rows) {
  std::int64_t count = 0;
  for (std::int64_t i = team_thread<threads>(); i < rows; i += threads) count += targets[i] >= 0;
  return static_cast<float>(join_team<threads>(count, Add()));
}

template <int threads, typename T>
__global__ void log_sums(const T* logits, const std::int32_t* targets, std::int64_t rows,
                         std::int64_t n, float* lse) {
  const std::int64_t row = team_row<threads>();
  if (row >= rows) return;
  const RowSum total = sum_of_exponentials<threads>(logits + row * n, n);
  if (team_thread<threads>() == 0)
    lse[row] = targets[row] < n ? total.log_sum() : std::numeric_limits<float>::quiet_NaN();
}

/// One block: the mean of lse - logit of the target, rows added in double.
template <typename T>
__global__ void mean_loss(const T* logits, const std::int32_t* targets, const float* lse,
                          std::int64_t rows, std::int64_t n, float* loss) {
  double part = 0;
  for (std::int64_t row = threadIdx.x; row < rows; row += kReducers) {
    const std::int32_t target = targets[row];
    if (target >= n) part += static_cast<double>(lse[row]);
    if (target >= 0 && target < n)
      part +=
          static_cast<double>(lse[row]) - static_cast<double>(to_float(logits[row * n + target]));
  }
  const double total = join_team<kReducers>(part, Add());
  const float count = counted<kReducers>(targets, rows);
  if (threadIdx.x == 0)
    *loss = static_cast<float>(total / static_cast<double>(count < 1 ? 1.0F : count));
}

/// dlogits = (softmax - onehot) dloss / counted rows.
template <int threads, typename T>
__global__ void loss_gradients(const T* logits, const std::int32_t* targets, const float* lse,
                               const float* dloss, std::int64_t rows, std::int64_t n, T* dlogits) {
  const std::int64_t row = team_row<threads>(), at = row * n;
  if (row >= rows) return;
  const float count = counted<threads>(targets, rows);
  const std::int32_t target = targets[row];
  const float factor = target < 0 ? 0.0F : *dloss / (count < 1 ? 1.0F : count);
  const float shift = lse[row];
  for_each_pack<threads>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v = load_pack(logits + at + i, left);
    for (int k = 0; k < kPack; ++k) {
      const float p = std::exp(v.at[k] - shift);
      v.at[k] = target < 0 ? 0.0F : factor * (i + k == target ? p - 1.0F : p);
    }
    store_pack(v, dlogits + at + i, left);
  });
}

/// 1 / counted rows at each row's target, else 0. A block per row.
template <typename T>
__global__ void weights_of_targets(const std::int32_t* targets, std::int64_t rows, std::int64_t n,
                                   T* weights) {
  const std::int64_t row = blockIdx.x;
  const float weight = 1.0F / counted<kBlock>(targets, rows);
  const std::int32_t target = targets[row];
  for_each_pack<kBlock>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v;
    for (int k = 0; k < kPack; ++k) v.at[k] = i + k == target ? weight : 0.0F;
    store_pack(v, weights + row * n + i, left);
  });
}

}  // namespace

void cross_entropy(const KernelArguments& a) {
  const TensorView& logits = a.inputs[0];
  const auto* targets = a.inputs[1].as<const std::int32_t>();
  const std::int64_t n = logits.shape[-1], rows = a.inputs[1].elements();
  auto* lse = a.outputs[1].as<float>();
  with_float(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (rows > 0)
      with_team(n, [&](auto threads) {
        launch(grid_of_teams<threads>(rows), dim3(kBlock), 0, a.context.stream,
               log_sums<threads, T>, logits.as<const T>(), targets, rows, n, lse);
      });
    launch(dim3(1), dim3(kReducers), 0, a.context.stream, mean_loss<T>, logits.as<const T>(),
           targets, lse, rows, n, a.outputs[0].as<float>());
  });
}

void cross_entropy_backward(const KernelArguments& a) {
  const TensorView& logits = a.inputs[0];
  const std::int64_t n = logits.shape[-1], rows = a.inputs[1].elements();
  if (rows == 0) return;
  with_float(logits.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_team(n, [&](auto threads) {
      launch(grid_of_teams<threads>(rows), dim3(kBlock), 0, a.context.stream,
             loss_gradients<threads, T>, logits.as<const T>(), a.inputs[1].as<const std::int32_t>(),
             a.inputs[2].as<const float>(), a.inputs[3].as<const float>(), rows, n,
             a.outputs[0].as<T>());
    });
  });
}

void target_weights(const KernelArguments& a) {
  const std::int64_t rows = a.inputs[0].elements(), n = a.outputs[0].shape[-1];
  if (rows == 0 || n == 0) return;
  with_float(a.outputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(grid_of(rows), dim3(kBlock), 0, a.context.stream, weights_of_targets<T>,
           a.inputs[0].as<const std::int32_t>(), rows, n, a.outputs[0].as<T>());
  });
}

}  // namespace ashlar::cuda
