// Causal attention by blocks (Dao et al., arXiv:2205.14135, algorithm 1).
#include "ops/attention_kernels.hpp"

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

/// Online softmax: scores become probabilities relative to the new maximum; `factors` rescale what
/// was summed under the old one.
template <class D, typename C = hn::TFromD<D>>
void softmax_step(D d, const Step& step, std::int64_t begin, std::int64_t lanes, C* scores,
                  C* maximum, C* total, C* factors) {
  const C infinity = std::numeric_limits<C>::infinity();
  const auto hidden = hn::Set(d, -infinity);
  for (std::int64_t lane = step.lane; lane < lanes;
       lane += static_cast<std::int64_t>(hn::Lanes(d))) {
    const bool masks = step.masked && lane < step.lane + kDiagonal;
    const auto old = hn::Load(d, maximum + lane);
    auto most = old;
    for (std::int64_t i = 0; i < step.count; ++i) {
      auto s = hn::Load(d, scores + i * kQueries + lane);
      if (masks) {
        s = hn::IfThenElse(visible(d, step.first - begin + i, lane), s, hidden);
        hn::Store(s, d, scores + i * kQueries + lane);
      }
      most = hn::Max(most, s);
    }
    auto sum = hn::Zero(d);
    for (std::int64_t i = 0; i < step.count; ++i) {
      const auto p = exp_of(d, hn::Sub(hn::Load(d, scores + i * kQueries + lane), most));
      hn::Store(p, d, scores + i * kQueries + lane);
      sum = hn::Add(sum, p);
    }
    const auto factor = exp_of(d, hn::Sub(old, most));
    hn::Store(factor, d, factors + lane);
    hn::Store(most, d, maximum + lane);
    hn::Store(hn::MulAdd(hn::Load(d, total + lane), factor, sum), d, total + lane);
  }
}

/// out (queries, D), its rows `channels` apart, and lse (queries) of the queries [begin, begin +
/// kQueries) of a head.
template <typename T>
void forward_block(const Head<const T>& head, std::int64_t begin,
                   const AttentionTiles<Wide<T>>& tiles, T* out, std::int64_t channels,
                   Wide<T>* lse) {
  using C = Wide<T>;
  const WideTag<T> d;
  const std::int64_t count = std::min(kQueries, head.positions - begin);
  const std::int64_t lanes = lanes_of(count);
  const C scale = C{1} / std::sqrt(static_cast<C>(head.size));
  HWY_ALIGN C maximum[kQueries], total[kQueries] = {}, factors[kQueries];
  std::fill(maximum, maximum + kQueries, -std::numeric_limits<C>::infinity());
  load_transposed(Rows<const T>{head.queries(begin), head.query_stride}, count, head.size, scale,
                  tiles.query);
  std::fill(tiles.sums, tiles.sums + head.size * kQueries, C{0});

  for_each_step(begin, count, [&](const Step& step) HWY_ATTR {
    const auto keys =
        widened<T>(head.keys(step.first), head.key_stride, step.count, head.size, tiles.keys);
    const auto values =
        widened<T>(head.values(step.first), head.key_stride, step.count, head.size, tiles.values);
    const std::int64_t width = lanes - step.lane;
    tile_product(d, step.count, width, head.size, LeftOperand<C>{keys.data, keys.stride, 1},
                 Rows<const C>{tiles.query + step.lane, kQueries},
                 Rows<C>{tiles.scores + step.lane, kQueries}, Update::overwrite);
    softmax_step(d, step, begin, lanes, tiles.scores, maximum, total, factors);
    tile_product(d, head.size, width, step.count, LeftOperand<C>{values.data, 1, values.stride},
                 Rows<const C>{tiles.scores + step.lane, kQueries},
                 Rows<C>{tiles.sums + step.lane, kQueries}, Update::add, factors + step.lane);
  });

  for (std::int64_t j = 0; j < head.size; ++j)
    for (std::int64_t lane = 0; lane < lanes; lane += static_cast<std::int64_t>(hn::Lanes(d))) {
      C* sum = tiles.sums + j * kQueries + lane;
      hn::Store(hn::Div(hn::Load(d, sum), hn::Load(d, total + lane)), d, sum);
    }
  transpose_tile<C, T>(head.size, count, {tiles.sums, kQueries}, {out, channels}, C{1});
  for (std::int64_t i = 0; i < count; ++i) lse[i] = maximum[i] + std::log(total[i]);
}

template <typename T>
void forward(const KernelArguments& arguments, const Sequences& sequences,
             const Operands<const T>& from) {
  const AttentionSizes& sizes = sequences.sizes;
  const std::int64_t channels = sizes.channels();
  for_each_with_scratch(
      arguments, sequences.places() * sizes.heads,
      kernels::attention_workspace(sizes, arguments.inputs[0].dtype),
      [&](std::int64_t task, std::byte* memory) HWY_ATTR {
        const auto [sequence, begin] = sequences.block(task / sizes.heads);
        const Head<const T> head(sequences, from, sequence, task % sizes.heads);
        if (begin >= head.positions) return;
        Scratch scratch(memory);
        const AttentionTiles<Wide<T>> tiles(scratch, head.size, std::is_same_v<T, bf16>);
        const std::int64_t row = head.first_row + begin;
        forward_block<T>(
            head, begin, tiles, arguments.outputs[0].as<T>() + row * channels + head.column,
            channels, arguments.outputs[1].as<Wide<T>>() + task % sizes.heads * sizes.rows + row);
      });
}

void run_attention(const KernelArguments& arguments) {
  const TensorView& qkv = arguments.inputs[0];
  const AttentionSizes sizes = packed_sizes(qkv.shape, arguments.attributes);
  with_float(qkv.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    forward<T>(arguments, {sizes}, packed_operands<const T>(qkv, sizes));
  });
}

void run_grouped_attention(const KernelArguments& arguments) {
  const TensorView& q = arguments.inputs[0];
  const AttentionSizes sizes = grouped_sizes(q.shape, arguments.attributes);
  const Sequences sequences = sequences_of(sizes, arguments.inputs[3]);
  with_float(q.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    forward<T>(arguments, sequences, separate_operands<const T>(arguments.inputs.first(3), sizes));
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_attention);
HWY_EXPORT(run_grouped_attention);

namespace kernels {

std::int64_t attention_workspace(const AttentionSizes& sizes, DType dtype) {
  const auto bytes = [&](auto wide) {
    Scratch scratch(nullptr);
    AttentionTiles<decltype(wide)>(scratch, sizes.head_size, size_of(dtype) == 2);
    return scratch.used();
  };
  return dtype == DType::f64 ? bytes(double{}) : bytes(float{});
}

void attention(const KernelArguments& arguments) { HWY_DYNAMIC_DISPATCH(run_attention)(arguments); }
void grouped_attention(const KernelArguments& arguments) {
  HWY_DYNAMIC_DISPATCH(run_grouped_attention)(arguments);
}

}  // namespace kernels
}  // namespace ashlar
#endif
