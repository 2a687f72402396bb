// Rows of the language-model head on chunks of logits: losses, and gradients in place.
#include <algorithm>

#include "cuda/kernels/host.hpp"
#include "cuda/kernels/softmax.hpp"

namespace ashlar::cuda {
namespace {

constexpr int kReducers = 1024;
// Rows that do not fit L1: few enough are under way at a time for L2 to hold them until they are
// read again.
constexpr std::int64_t kVeryLongRow = 16384;
constexpr int kWideTeam = 1024;

/// A row per team. `scale` null: losses only. A gradient takes the place of its logit: a thread
/// writes what it alone reads after the target's logit has been read by all.
template <int threads, typename T>
__global__ void __launch_bounds__(threads == kWideTeam ? kWideTeam : kBlock,
                                  threads == kWideTeam ? 2 : 6)
    head_rows(T* logits, const std::int32_t* targets, std::int64_t rows, std::int64_t columns,
              std::int64_t stride, const double* scale, double* losses) {
  const std::int64_t row = team_row<threads>(), at = row * stride;
  if (row >= rows) return;
  const std::int32_t target = targets[row];
  const bool counts = target >= 0, known = target < columns;
  const float right =
      counts && known ? to_float(logits[at + target]) : std::numeric_limits<float>::quiet_NaN();
  const RowSum total = sum_of_exponentials<threads>(logits + at, columns);
  if (team_thread<threads>() == 0)
    losses[row] = counts ? static_cast<double>(std::log(total.sum)) +
                               (static_cast<double>(total.most) - static_cast<double>(right))
                         : 0.0;
  if (scale == nullptr) return;
  if constexpr (threads == kWarp) __syncwarp();  // larger teams have met at a barrier
  const auto whole = static_cast<float>(*scale);
  const auto factor = static_cast<float>(*scale / static_cast<double>(total.sum));
  for_each_pack<threads>(stride, [&](std::int64_t i, std::int64_t left) {
    Pack v = load_pack(logits + at + i, left);
    for (int k = 0; k < kPack; ++k) {
      const float slope = factor * std::exp(v.at[k] - total.most);
      v.at[k] = !counts || i + k >= columns ? 0.0F : i + k == target ? slope - whole : slope;
    }
    store_pack(v, logits + at + i, left);
  });
}

/// One block. 1 / counted targets, times dloss where there is one; 0 when none counts.
__global__ void scale_of_targets(const std::int32_t* targets, std::int64_t rows, const float* dloss,
                                 double* scale) {
  std::int64_t part = 0;
  for (std::int64_t i = threadIdx.x; i < rows; i += kReducers) part += targets[i] >= 0;
  const auto count = join_team<kReducers>(part, Add());
  const double value = dloss == nullptr ? 1.0 : static_cast<double>(*dloss);
  if (threadIdx.x == 0) *scale = count == 0 ? 0.0 : value / static_cast<double>(count);
}

/// One block. loss = scale x the sum of losses.
__global__ void scaled_sum(const double* losses, std::int64_t rows, const double* scale,
                           float* loss) {
  double part = 0;
  for (std::int64_t i = threadIdx.x; i < rows; i += kReducers) part += losses[i];
  const double total = join_team<kReducers>(part, Add());
  if (threadIdx.x == 0) *loss = static_cast<float>(total * *scale);
}

void run_rows(const RunContext& context, const HeadRows& h, const double* scale, double* losses) {
  if (h.rows == 0) return;
  const std::int64_t stride = h.stride == 0 ? h.columns : h.stride;
  with_float(h.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto run = [&](auto threads) {
      launch(grid_of_teams<threads>(h.rows), dim3(std::max(threads(), kBlock)), 0, context.stream,
             head_rows<threads, T>, reinterpret_cast<T*>(h.logits), h.targets, h.rows, h.columns,
             stride, scale, losses);
    };
    if (h.columns > kVeryLongRow) return run(std::integral_constant<int, kWideTeam>{});
    with_team(h.columns, run);
  });
}

}  // namespace

void negative_log_likelihood(const RunContext& context, const HeadRows& rows, double* losses) {
  run_rows(context, rows, nullptr, losses);
}

void negative_log_likelihood_gradient(const RunContext& context, const HeadRows& rows,
                                      const double* scale, double* losses) {
  run_rows(context, rows, scale, losses);
}

void target_scale(const RunContext& context, const std::int32_t* targets, std::int64_t rows,
                  const float* dloss, double* scale) {
  launch(dim3(1), dim3(kReducers), 0, context.stream, scale_of_targets, targets, rows, dloss,
         scale);
}

void sum_losses(const RunContext& context, const double* losses, std::int64_t rows,
                const double* scale, float* loss) {
  launch(dim3(1), dim3(kReducers), 0, context.stream, scaled_sum, losses, rows, scale, loss);
}

}  // namespace ashlar::cuda
