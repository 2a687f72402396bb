// Table look-up and its gradients. The gradient of the token table adds rows of dy in the order of
// sorted (token, index) keys, without atomics: a segment of equal tokens belongs to one block.
#include "cuda/kernels/columns.hpp"
#include "ops/embedding_kernels.hpp"

namespace ashlar::cuda {
namespace {

/// A warp per row. A token that is not in the table makes the row NaN, as a kernel cannot throw.
template <typename T>
__global__ void look_up(const std::int32_t* tokens, const T* table, const T* places,
                        std::int64_t rows, std::int64_t positions, std::int64_t vocabulary,
                        std::int64_t n, T* out) {
  const std::int64_t row = team_row<kWarp>();
  if (row >= rows) return;
  const std::int32_t token = tokens[row];
  const bool known = 0 <= token && token < vocabulary;
  for_each_pack<kWarp>(n, [&](std::int64_t i, std::int64_t left) {
    Pack v;
    if (known) {
      v = load_pack(table + token * n + i, left);
    } else {
      for (float& element : v.at) element = std::numeric_limits<float>::quiet_NaN();
    }
    if (places != nullptr) {
      const Pack place = load_pack(places + row % positions * n + i, left);
      for (int k = 0; k < kPack; ++k) v.at[k] += place.at[k];
    }
    store_pack(v, out + row * n + i, left);
  });
}

constexpr int kKeys = 8;  // of a warp

/// Adds to each rank how many tokens of [begin, end) come before key k, the lane's share of them.
template <class Before>
__device__ void count_before(const std::int32_t* tokens, std::int64_t begin, std::int64_t end,
                             int (&ranks)[kKeys], const Before& before) {
  for (std::int64_t i = begin + lane_of_thread(); i < end; i += kWarp) {
    const std::int32_t token = tokens[i];
    for (int k = 0; k < kKeys; ++k) ranks[k] += before(token, i, k) ? 1 : 0;
  }
}

/// keys[r] = token << 32 | index, r the key's rank: how many tokens come before it, of equal ones
/// those with lower indices. A warp goes through all tokens for kKeys neighbouring keys.
__global__ void sort_tokens(const std::int32_t* tokens, std::int64_t count, std::uint64_t* keys) {
  const std::int64_t first = team_row<kWarp>() * kKeys, end = first + kKeys;
  if (first >= count) return;
  std::int32_t mine[kKeys];
  int ranks[kKeys] = {};
  for (int k = 0; k < kKeys; ++k) mine[k] = first + k < count ? tokens[first + k] : 0;
  count_before(tokens, 0, first, ranks,
               [&](std::int32_t token, std::int64_t, int k) { return token <= mine[k]; });
  count_before(tokens, first, end < count ? end : count, ranks,
               [&](std::int32_t token, std::int64_t i, int k) {
                 return token < mine[k] || (token == mine[k] && i < first + k);
               });
  count_before(tokens, end, count, ranks,
               [&](std::int32_t token, std::int64_t, int k) { return token < mine[k]; });
  int rank = 0;
  for (int k = 0; k < kKeys; ++k) {
    const int joined = join_warp(ranks[k], Add());
    if (lane_of_thread() == k) rank = joined;
  }
  const std::int64_t own = first + lane_of_thread();
  if (own < count && own < end)
    keys[rank] = static_cast<std::uint64_t>(static_cast<std::uint32_t>(tokens[own])) << 32 |
                 static_cast<std::uint64_t>(own);
}

/// Blocks go through (keys, tiles of columns): the segment of equal tokens that begins at the key,
/// if one does.
template <typename T, typename Out>
__global__ void sum_segments(const std::uint64_t* keys, std::int64_t count, const T* dy,
                             std::int64_t vocabulary, std::int64_t n, Out* table) {
  const ColumnTile tile = tile_of_block(n);
  const std::int64_t first = tile.row, column = tile.pack_column, own = tile.own_column;
  const std::uint64_t token = keys[first] >> 32;
  if (first > 0 && keys[first - 1] >> 32 == token) return;
  if (token >= static_cast<std::uint64_t>(vocabulary)) return;
  Pack sums;
  if (column < n)
    for (std::int64_t k = first + warp_of_thread(); k < count && keys[k] >> 32 == token;
         k += kWarps) {
      const auto row = static_cast<std::int64_t>(keys[k] & 0xffffffffU);
      const Pack v = load_pack(dy + row * n + column, n - column);
      for (int e = 0; e < kPack; ++e) sums.at[e] += v.at[e];
    }
  const float total = join_warps(sums);
  if (own < n) table[static_cast<std::int64_t>(token) * n + own] = from_float<Out>(total);
}

/// Blocks go through (positions, tiles of columns): a position's, over all samples.
template <typename T, typename Out>
__global__ void sum_samples(const T* dy, std::int64_t samples, std::int64_t positions,
                            std::int64_t n, Out* table) {
  const ColumnTile tile = tile_of_block(n);
  const std::int64_t position = tile.row, column = tile.pack_column, own = tile.own_column;
  Pack sums;
  if (column < n && position < positions)
    for (std::int64_t sample = warp_of_thread(); sample < samples; sample += kWarps) {
      const Pack v = load_pack(dy + (sample * positions + position) * n + column, n - column);
      for (int e = 0; e < kPack; ++e) sums.at[e] += v.at[e];
    }
  const float total = join_warps(sums);
  if (own < n) table[position * n + own] = from_float<Out>(total);
}

}  // namespace

void embedding(const KernelArguments& a) {
  const TensorView &tokens = a.inputs[0], &table = a.inputs[1];
  const std::int64_t rows = tokens.elements(), n = table.shape[1];
  if (rows == 0 || n == 0) return;
  with_float(table.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(grid_of_teams<kWarp>(rows), dim3(kBlock), 0, a.context.stream, look_up<T>,
           tokens.as<const std::int32_t>(), table.as<const T>(), a.inputs[2].as<const T>(), rows,
           tokens.shape[-1], table.shape[0], n, a.outputs[0].as<T>());
  });
}

void embedding_tokens(const KernelArguments& a) {
  const TensorView &tokens = a.inputs[0], &dy = a.inputs[1], &table = a.outputs[0];
  const std::int64_t count = tokens.elements(), n = table.shape[1];
  auto* keys = reinterpret_cast<std::uint64_t*>(a.workspace);
  fill_zeros(a.context.stream, table.data, table.bytes());
  if (count == 0 || n == 0) return;
  launch(grid_of_teams<kWarp>(ceil_div(count, kKeys)), dim3(kBlock), 0, a.context.stream,
         sort_tokens, tokens.as<const std::int32_t>(), count, keys);
  with_float(dy.dtype, [&](auto from) {
    with_float(table.dtype, [&](auto to) {
      using T = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      launch(grid_of_tiles(count, n), dim3(kBlock), 0, a.context.stream, sum_segments<T, Out>, keys,
             count, dy.as<const T>(), table.shape[0], n, table.as<Out>());
    });
  });
}

void embedding_positions(const KernelArguments& a) {
  const TensorView &dy = a.inputs[0], &table = a.outputs[0];
  const std::int64_t positions = dy.shape[-2], n = dy.shape[-1];
  const std::int64_t samples = positions * n == 0 ? 0 : dy.elements() / (positions * n);
  if (table.elements() == 0) return;
  with_float(dy.dtype, [&](auto from) {
    with_float(table.dtype, [&](auto to) {
      using T = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      launch(grid_of_tiles(table.shape[0], n), dim3(kBlock), 0, a.context.stream,
             sum_samples<T, Out>, dy.as<const T>(), samples, positions, n, table.as<Out>());
    });
  });
}

}  // namespace ashlar::cuda
