// Sums over rows, column by column, in two stages: every block sums its rows into a partial, then
// the partials are added in their order. A block of the first has kWarps warps; a warp takes every
// kWarps-th row, a lane eight columns of it. V is what is added in: float or double.
#pragma once

#include "cuda/kernels/host.hpp"
#include "cuda/kernels/pack.hpp"
#include "cuda/kernels/team.hpp"

namespace ashlar::cuda {

inline constexpr int kTileColumns = kWarp * kPack;  // of a block; as many as it has threads
static_assert(kTileColumns == kBlock);

/// Blocks go through (rows, tiles of kTileColumns columns), all along the grid's first axis.
struct ColumnTile {
  std::int64_t row;
  std::int64_t pack_column;  // the first of this thread's pack
  std::int64_t own_column;   // the one that join_warps gives this thread
};
__device__ inline ColumnTile tile_of_block(std::int64_t n) {
  const auto tiles = static_cast<unsigned>(ceil_div(n, kTileColumns));
  const std::int64_t first = std::int64_t{blockIdx.x % tiles} * kTileColumns;
  return {blockIdx.x / tiles, first + lane_of_thread() * kPack, first + threadIdx.x};
}
inline dim3 grid_of_tiles(std::int64_t rows, std::int64_t n) {
  return grid_of(rows * ceil_div(n, kTileColumns));
}

/// Adds the packs of all warps, in their order: the total of this thread's own column.
template <typename V>
__device__ inline V join_warps(const PackOf<V>& sums) {
  auto& tile = shared<V[kWarps][kTileColumns], struct JoinedWarps>();
  __syncthreads();
  for (int k = 0; k < kPack; ++k) tile[warp_of_thread()][lane_of_thread() * kPack + k] = sums.at[k];
  __syncthreads();
  V total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += tile[warp][threadIdx.x];
  return total;
}

/// First stage. f(row, column, columns left, PackOf<V> (&sums)[kSums]) adds a pack of a row to the
/// sums. Tile row y sums rows [y, y + 1) rows_per_block -> partials (tile rows, kSums, n).
template <int kSums, typename V, class F>
__global__ void column_partials(F f, std::int64_t rows, std::int64_t rows_per_block, std::int64_t n,
                                V* partials) {
  const ColumnTile tile = tile_of_block(n);
  const std::int64_t first = tile.row * rows_per_block, column = tile.pack_column;
  const std::int64_t end = first + rows_per_block < rows ? first + rows_per_block : rows;
  PackOf<V> sums[kSums];
  if (column < n)
    for (std::int64_t row = first + warp_of_thread(); row < end; row += kWarps)
      f(row, column, n - column, sums);
  for (int s = 0; s < kSums; ++s) {
    const V total = join_warps(sums[s]);
    if (tile.own_column < n) partials[(tile.row * kSums + s) * n + tile.own_column] = total;
  }
}

/// Where sums go: (n) in f32 or bf16 each.
template <int kSums>
struct ColumnOutputs {
  void* data[kSums];
  bool narrow[kSums];  // bf16
};

constexpr int kTotalsBlock = kWarp * kWarp;  // threads of the second stage

/// Second stage: sums of partials (blocks, kSums, n) over blocks. A lane has a column, a warp every
/// kWarp-th block.
template <int kSums, typename V>
__global__ void column_totals(const V* partials, std::int64_t blocks, std::int64_t n,
                              ColumnOutputs<kSums> outputs) {
  auto& sums = shared<V[kWarp][kWarp], struct Totals>();
  const int lane = lane_of_thread();
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarp + lane, columns = kSums * n;
  V sum = 0;
  if (column < columns)
    for (std::int64_t block = warp_of_thread(); block < blocks; block += kWarp)
      sum += partials[block * columns + column];
  sums[warp_of_thread()][lane] = sum;
  __syncthreads();
  if (warp_of_thread() > 0 || column >= columns) return;
  V total = 0;
  for (int warp = 0; warp < kWarp; ++warp) total += sums[warp][lane];
  const auto rounded = static_cast<float>(total);
  for (int s = 0; s < kSums; ++s) {
    if (column / n != s) continue;
    if (outputs.narrow[s]) {
      static_cast<bf16*>(outputs.data[s])[column % n] = from_float<bf16>(rounded);
    } else {
      static_cast<float*>(outputs.data[s])[column % n] = rounded;
    }
  }
}

/// The second stage; `outputs` (n) in f32 or bf16 each.
template <int kSums, typename V>
void add_partials(StreamRef stream, const V* partials, std::int64_t blocks, std::int64_t n,
                  std::span<const TensorView> outputs) {
  ColumnOutputs<kSums> to;
  for (int s = 0; s < kSums; ++s) {
    const TensorView& output = outputs[static_cast<std::size_t>(s)];
    with_float(output.dtype, [](auto) {});  // refuses other types
    to.data[s] = output.data;
    to.narrow[s] = output.dtype == DType::bf16;
  }
  launch(grid_of(ceil_div(kSums * n, kWarp)), dim3(kTotalsBlock), 0, stream,
         column_totals<kSums, V>, partials, blocks, n, to);
}

/// Both stages; the workspace holds kSums x n V for each rows_per_block rows. With no rows the sums
/// are 0.
template <int kSums, typename V = float, class F>
void sum_columns(StreamRef stream, const F& f, std::int64_t rows, std::int64_t rows_per_block,
                 std::int64_t n, std::byte* workspace, std::span<const TensorView> outputs) {
  if (n == 0) return;
  auto* partials = reinterpret_cast<V*>(workspace);
  const std::int64_t blocks = ceil_div(rows, rows_per_block);
  if (blocks > 0)
    launch(grid_of_tiles(blocks, n), dim3(kBlock), 0, stream, column_partials<kSums, V, F>, f, rows,
           rows_per_block, n, partials);
  add_partials<kSums>(stream, static_cast<const V*>(partials), blocks, n, outputs);
}

}  // namespace ashlar::cuda
