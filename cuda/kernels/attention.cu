// Causal attention by blocks (Dao et al., arXiv:2205.14135, algorithm 1).
#include "cuda/kernels/attention.hpp"
#include "cuda/kernels/softmax.hpp"

namespace ashlar::cuda {
namespace {

/// Of a warp's own rows: largest score so far, and the sum of exponentials.
struct Running {
  OwnValues most, total;
  __device__ Running() {
    for (float& value : most.at) value = kHidden;
  }
};

/// Online softmax: scores become probabilities relative to the new maximum, `sums` are rescaled.
/// `visible`: keys from the tile's first on that own row 0 sees; each later row sees one more.
template <int channels>
__device__ void softmax_step(std::int64_t visible, std::int64_t own_rows, OwnValues& scores,
                             Running& running, OwnSums<channels>& sums) {
  for (int row = 0; row < kOwn; ++row) {
    const bool sees = row < own_rows && lane_of_thread() < visible + row;
    const float score = sees ? scores.at[row] : kHidden, old = running.most.at[row];
    const float most = Larger()(old, join_warp(score, Larger()));
    const float p = sees ? std::exp(score - most) : 0.0F;
    const float factor = old == kHidden ? 0.0F : std::exp(old - most);
    running.most.at[row] = most;
    running.total.at[row] = std::fma(running.total.at[row], factor, join_warp(p, Add()));
    sums.scale(row, factor);
    scores.at[row] = p;
  }
}

/// Grid (places, heads).
template <int channels, typename T>
__global__ void attention_rows(DeviceSequences sequences, HeadOperands<const T> from, T* out,
                               float* lse) {
  const AttentionSizes& s = sequences.sizes;
  const Stretch stretch = sequences.stretch(blockIdx.x);
  if (stretch.begin >= stretch.length) return;
  const std::int64_t head = blockIdx.y, size = s.head_size, kv = head / (s.heads / s.kv_heads);
  const T* query = from.query + stretch.first_row * from.query_stride + head * size;
  const T* key = from.key + stretch.first_row * from.key_stride + kv * size;
  const T* value = from.value + stretch.first_row * from.key_stride + kv * size;
  float* own = dynamic_shared<float>();
  float* keys = own + own_elements(size);
  float* values = keys + tile_elements(size);
  const std::int64_t mine = stretch.begin + warp_of_thread() * kOwn;
  const std::int64_t last = stretch.begin + kOwnOfBlock;
  const std::int64_t end = last < stretch.length ? last : stretch.length;
  load_own(query, from.query_stride, stretch.begin, stretch.length, size,
           1.0F / std::sqrt(static_cast<float>(size)), own);
  Running running;
  OwnSums<channels> sums;
  for (std::int64_t first = 0; first < end; first += kWarp) {
    __syncthreads();
    load_tile(key, from.key_stride, first, end, size, 1.0F, keys);
    load_tile(value, from.key_stride, first, end, size, 1.0F, values);
    __syncthreads();
    OwnValues scores = products(own + warp_of_thread() * kOwn * size, keys, size);
    softmax_step(mine + 1 - first, end - mine, scores, running, sums);
    sums.add(scores, values, size);
  }
  OwnValues factors;
  for (int row = 0; row < kOwn; ++row) {
    factors.at[row] = 1.0F / running.total.at[row];
    if (lane_of_thread() == 0 && mine + row < end)
      lse[head * s.rows + stretch.first_row + mine + row] =
          running.most.at[row] + std::log(running.total.at[row]);
  }
  const std::int64_t out_stride = s.heads * size;
  sums.store(factors, out + stretch.first_row * out_stride + head * size, out_stride, mine, end,
             size);
}

template <typename T>
void forward(const KernelArguments& a, const DeviceSequences& sequences,
             const HeadOperands<const T>& from) {
  const AttentionSizes& s = sequences.sizes;
  if (a.outputs[0].elements() == 0) return;
  with_head_size(s.head_size, [&](auto channels) {
    launch(grid_of(sequences.places(), s.heads), dim3(kHeadBlock), head_bytes(1, 2, s.head_size),
           a.context.stream, attention_rows<channels, T>, sequences, from, a.outputs[0].as<T>(),
           a.outputs[1].as<float>());
  });
}

/// 0 where the query sees the key, else a huge negative.
template <typename T>
__global__ void mask_pairs(const std::int32_t* boundaries, std::int64_t count,
                           std::int64_t positions, T* out) {
  const std::int64_t i = thread_in_grid();
  if (i >= positions * positions) return;
  const std::int64_t query = i / positions, key = i % positions;
  std::int64_t first = 0;
  for (std::int64_t b = 0; b < count; ++b)
    if (boundaries[b] <= query) first = boundaries[b];
  out[i] = from_float<T>(first <= key && key <= query ? 0.0F : -1e30F);
}

}  // namespace

void attention(const KernelArguments& a) {
  const AttentionSizes sizes = packed_sizes(a.inputs[0].shape, a.attributes);
  with_float(a.inputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    forward<T>(a, {sizes, nullptr}, packed_operands<const T>(a.inputs[0], sizes));
  });
}

void grouped_attention(const KernelArguments& a) {
  const AttentionSizes sizes = grouped_sizes(a.inputs[0].shape, a.attributes);
  with_float(a.inputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    forward<T>(a, {sizes, a.inputs[3].as<const std::int32_t>()},
               separate_operands<const T>(a.inputs.first(3), sizes));
  });
}

void causal_mask(const KernelArguments& a) {
  const TensorView& out = a.outputs[0];
  if (out.elements() == 0) return;
  const auto* boundaries = a.inputs[0].as<const std::int32_t>();
  const std::int64_t count = boundaries == nullptr ? 0 : a.inputs[0].elements();
  with_float(out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(grid_of_threads(out.elements()), dim3(kBlock), 0, a.context.stream, mask_pairs<T>,
           boundaries, count, out.shape[0], out.as<T>());
  });
}

}  // namespace ashlar::cuda
