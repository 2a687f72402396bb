// The backward of causal attention: probabilities are computed again by blocks (Dao,
// arXiv:2307.08691, section 3.1.2). Gradients of queries and of keys and values come from two
// launches, so that every element is summed by one thread, in order.
#include "cuda/kernels/attention.hpp"

namespace ashlar::cuda {
namespace {

/// What forward left and what comes back, all (rows, C) but lse (heads, rows); delta (heads, rows)
/// lies in the workspace.
template <typename T>
struct Results {
  const T* out;
  const float* lse;
  const T* dout;
  float* delta;
};

/// delta = the sum of out dout over a row of a head. A warp per row; grid (rows, heads).
template <typename T>
__global__ void row_products(Results<T> r, std::int64_t rows, std::int64_t heads,
                             std::int64_t size) {
  const std::int64_t row = team_row<kWarp>(), head = blockIdx.y;
  if (row >= rows) return;
  const std::int64_t at = (row * heads + head) * size;
  float part = 0;
  for_each_pack<kWarp>(size, [&](std::int64_t i, std::int64_t left) {
    const Pack a = load_pack(r.out + at + i, left), b = load_pack(r.dout + at + i, left);
    for (int k = 0; k < kPack; ++k) part = std::fma(a.at[k], b.at[k], part);
  });
  const float total = join_warp(part, Add());
  if (lane_of_thread() == 0) r.delta[head * rows + row] = total;
}

/// Gradients of the queries. Grid (places, heads).
template <int channels, typename T>
__global__ void query_gradients(DeviceSequences sequences, HeadOperands<const T> from, Results<T> r,
                                HeadOperands<T> to) {
  const AttentionSizes& s = sequences.sizes;
  const Stretch stretch = sequences.stretch(blockIdx.x);
  if (stretch.begin >= stretch.length) return;
  const std::int64_t head = blockIdx.y, size = s.head_size, kv = head / (s.heads / s.kv_heads);
  const std::int64_t row0 = stretch.first_row, out_stride = s.heads * size;
  const T* key = from.key + row0 * from.key_stride + kv * size;
  const T* value = from.value + row0 * from.key_stride + kv * size;
  const float scale = 1.0F / std::sqrt(static_cast<float>(size));
  float* queries = dynamic_shared<float>();
  float* douts = queries + own_elements(size);
  float* keys = douts + own_elements(size);
  float* values = keys + tile_elements(size);
  const std::int64_t mine = stretch.begin + warp_of_thread() * kOwn;
  const std::int64_t last = stretch.begin + kOwnOfBlock;
  const std::int64_t end = last < stretch.length ? last : stretch.length;
  load_own(from.query + row0 * from.query_stride + head * size, from.query_stride, stretch.begin,
           stretch.length, size, scale, queries);
  load_own(r.dout + row0 * out_stride + head * size, out_stride, stretch.begin, stretch.length,
           size, 1.0F, douts);
  OwnValues shift, centre, scales;
  for (int row = 0; row < kOwn; ++row) {
    const std::int64_t at = head * s.rows + row0 + mine + row;
    shift.at[row] = mine + row < end ? r.lse[at] : 0.0F;
    centre.at[row] = mine + row < end ? r.delta[at] : 0.0F;
    scales.at[row] = scale;
  }
  OwnSums<channels> sums;
  for (std::int64_t first = 0; first < end; first += kWarp) {
    __syncthreads();
    load_tile(key, from.key_stride, first, end, size, 1.0F, keys);
    load_tile(value, from.key_stride, first, end, size, 1.0F, values);
    __syncthreads();
    const std::int64_t part = warp_of_thread() * kOwn * size, seen = mine + 1 - first;
    const OwnValues scores = products(queries + part, keys, size);
    OwnValues slopes = products(douts + part, values, size);
    for (int row = 0; row < kOwn; ++row) {
      const bool sees = mine + row < end && lane_of_thread() < seen + row;
      const float p = sees ? std::exp(scores.at[row] - shift.at[row]) : 0.0F;
      slopes.at[row] = p * (slopes.at[row] - centre.at[row]);
    }
    sums.add(slopes, keys, size);
  }
  sums.store(scales, to.query + row0 * to.query_stride + head * size, to.query_stride, mine, end,
             size);
}

/// Gradients of keys and values, over the queries of all heads that read them. Grid (places,
/// kv_heads).
template <int channels, typename T>
__global__ void key_gradients(DeviceSequences sequences, HeadOperands<const T> from, Results<T> r,
                              HeadOperands<T> to) {
  const AttentionSizes& s = sequences.sizes;
  const Stretch stretch = sequences.stretch(blockIdx.x);
  if (stretch.begin >= stretch.length) return;
  const std::int64_t kv = blockIdx.y, size = s.head_size, group = s.heads / s.kv_heads;
  const std::int64_t row0 = stretch.first_row, out_stride = s.heads * size;
  const std::int64_t kv_at = row0 * from.key_stride + kv * size;
  const float scale = 1.0F / std::sqrt(static_cast<float>(size));
  float* keys = dynamic_shared<float>();
  float* values = keys + own_elements(size);
  float* queries = values + own_elements(size);
  float* douts = queries + tile_elements(size);
  const std::int64_t mine = stretch.begin + warp_of_thread() * kOwn, end = stretch.length;
  load_own(from.key + kv_at, from.key_stride, stretch.begin, end, size, 1.0F, keys);
  load_own(from.value + kv_at, from.key_stride, stretch.begin, end, size, 1.0F, values);
  OwnSums<channels> of_keys, of_values;
  for (std::int64_t head = kv * group; head < (kv + 1) * group; ++head) {
    const T* query = from.query + row0 * from.query_stride + head * size;
    const T* dout = r.dout + row0 * out_stride + head * size;
    for (std::int64_t first = stretch.begin; first < end; first += kWarp) {
      __syncthreads();
      load_tile(query, from.query_stride, first, end, size, scale, queries);
      load_tile(dout, out_stride, first, end, size, 1.0F, douts);
      __syncthreads();
      const std::int64_t part = warp_of_thread() * kOwn * size, position = first + lane_of_thread();
      const std::int64_t at = head * s.rows + row0 + position;
      const float shift = position < end ? r.lse[at] : 0.0F;
      const float centre = position < end ? r.delta[at] : 0.0F;
      OwnValues p = products(keys + part, queries, size);
      OwnValues slopes = products(values + part, douts, size);
      for (int row = 0; row < kOwn; ++row) {
        const bool seen = position < end && mine + row <= position;
        p.at[row] = seen ? std::exp(p.at[row] - shift) : 0.0F;
        slopes.at[row] = p.at[row] * (slopes.at[row] - centre);
      }
      of_values.add(p, douts, size);
      of_keys.add(slopes, queries, size);
    }
  }
  OwnValues ones;
  for (float& one : ones.at) one = 1.0F;
  of_keys.store(ones, to.key + row0 * to.key_stride + kv * size, to.key_stride, mine, end, size);
  of_values.store(ones, to.value + row0 * to.key_stride + kv * size, to.key_stride, mine, end,
                  size);
}

template <typename T>
void backward(const KernelArguments& a, const DeviceSequences& sequences,
              const HeadOperands<const T>& from, std::span<const TensorView> results,
              const HeadOperands<T>& to) {
  const AttentionSizes& s = sequences.sizes;
  if (results[0].elements() == 0) return;
  const Results<T> r{results[0].as<T>(), results[1].as<float>(), results[2].as<T>(),
                     reinterpret_cast<float*>(a.workspace)};
  const dim3 warps(grid_of_teams<kWarp>(s.rows).x, static_cast<unsigned>(s.heads));
  launch(warps, dim3(kBlock), 0, a.context.stream, row_products<T>, r, s.rows, s.heads,
         s.head_size);
  const std::size_t bytes = head_bytes(2, 2, s.head_size);
  with_head_size(s.head_size, [&](auto channels) {
    launch(grid_of(sequences.places(), s.heads), dim3(kHeadBlock), bytes, a.context.stream,
           query_gradients<channels, T>, sequences, from, r, to);
    launch(grid_of(sequences.places(), s.kv_heads), dim3(kHeadBlock), bytes, a.context.stream,
           key_gradients<channels, T>, sequences, from, r, to);
  });
}

}  // namespace

std::int64_t attention_backward_workspace(const OpShapes& shapes) {
  const Shape& query = shapes.inputs[0].shape;
  return query[0] * query[1] * shapes.attributes.integer("heads") * size_of(DType::f32);
}

void attention_backward(const KernelArguments& a) {
  const AttentionSizes sizes = packed_sizes(a.inputs[0].shape, a.attributes);
  with_float(a.inputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    backward<T>(a, {sizes, nullptr}, packed_operands<const T>(a.inputs[0], sizes),
                a.inputs.subspan(1), packed_operands<T>(a.outputs[0], sizes));
  });
}

void grouped_attention_backward(const KernelArguments& a) {
  const AttentionSizes sizes = grouped_sizes(a.inputs[0].shape, a.attributes);
  with_float(a.inputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    backward<T>(a, {sizes, a.inputs[3].as<const std::int32_t>()},
                separate_operands<const T>(a.inputs.first(3), sizes), a.inputs.subspan(4),
                separate_operands<T>(a.outputs, sizes));
  });
}

}  // namespace ashlar::cuda
