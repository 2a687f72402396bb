// Sums over rows, column by column, in two stages: every block sums its rows into a partial, then
// the partials are added in their order. A block has kWarps warps; a warp takes every kWarps-th
// row, a lane eight columns of it.
#pragma once

#include "cuda/kernels/host.hpp"
#include "cuda/kernels/pack.hpp"
#include "cuda/kernels/team.hpp"

namespace ashlar::cuda {

inline constexpr int kTileColumns = kWarp * kPack;  // of a block; as many as it has threads
static_assert(kTileColumns == kBlock);

/// The first column of this thread's pack.
__device__ inline std::int64_t pack_column() {
  return std::int64_t{blockIdx.x} * kTileColumns + lane_of_thread() * kPack;
}
/// The column that join_warps gives this thread.
__device__ inline std::int64_t own_column() {
  return std::int64_t{blockIdx.x} * kTileColumns + threadIdx.x;
}

/// Adds the packs of all warps, in their order: the total of own_column().
__device__ inline float join_warps(const Pack& sums) {
  auto& tile = shared<float[kWarps][kTileColumns], struct ColumnTile>();
  __syncthreads();
  for (int k = 0; k < kPack; ++k) tile[warp_of_thread()][lane_of_thread() * kPack + k] = sums.at[k];
  __syncthreads();
  float total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += tile[warp][threadIdx.x];
  return total;
}

/// First stage. f(row, column, columns left, Pack (&sums)[kSums]) adds a pack of a row to the sums.
/// Block (x, y): columns of tile x, rows [y, y + 1) rows_per_block -> partials (blocks, kSums, n).
template <int kSums, class F>
__global__ void column_partials(F f, std::int64_t rows, std::int64_t rows_per_block, std::int64_t n,
                                float* partials) {
  const std::int64_t first = blockIdx.y * rows_per_block, column = pack_column();
  const std::int64_t end = first + rows_per_block < rows ? first + rows_per_block : rows;
  Pack sums[kSums];
  if (column < n)
    for (std::int64_t row = first + warp_of_thread(); row < end; row += kWarps)
      f(row, column, n - column, sums);
  for (int s = 0; s < kSums; ++s) {
    const float total = join_warps(sums[s]);
    if (own_column() < n) partials[(blockIdx.y * kSums + s) * n + own_column()] = total;
  }
}

/// Second stage: out (n) = the sum of partials (blocks, n), `stride` elements from one block to the
/// next.
template <typename Out>
__global__ void column_totals(const float* partials, std::int64_t blocks, std::int64_t stride,
                              std::int64_t n, Out* out) {
  const std::int64_t column = pack_column();
  Pack sums;
  if (column < n)
    for (std::int64_t block = warp_of_thread(); block < blocks; block += kWarps) {
      const Pack partial = load_pack(partials + block * stride + column, n - column);
      for (int k = 0; k < kPack; ++k) sums.at[k] += partial.at[k];
    }
  const float total = join_warps(sums);
  if (own_column() < n) out[own_column()] = static_cast<Out>(total);
}

/// Both stages; `outputs` (n) in f32 or bf16 each. With no rows the sums are 0.
template <int kSums, class F>
void sum_columns(StreamRef stream, const F& f, std::int64_t rows, std::int64_t rows_per_block,
                 std::int64_t n, std::byte* workspace, std::span<const TensorView> outputs) {
  if (n == 0) return;
  auto* partials = reinterpret_cast<float*>(workspace);
  const std::int64_t blocks = ceil_div(rows, rows_per_block), tiles = ceil_div(n, kTileColumns);
  if (blocks > 0)
    launch(grid_of(tiles, blocks), dim3(kBlock), 0, stream, column_partials<kSums, F>, f, rows,
           rows_per_block, n, partials);
  for (int s = 0; s < kSums; ++s)
    with_float(outputs[static_cast<std::size_t>(s)].dtype, [&](auto tag) {
      using Out = typename decltype(tag)::type;
      launch(grid_of(tiles), dim3(kBlock), 0, stream, column_totals<Out>, partials + s * n, blocks,
             kSums * n, n, outputs[static_cast<std::size_t>(s)].as<Out>());
    });
}

}  // namespace ashlar::cuda
