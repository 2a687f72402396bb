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

/// out (queries, D) and lse (queries) of the queries [begin, begin + kQueries) of a head.
template <typename T>
void forward_block(const Head<T>& head, std::int64_t begin, const AttentionTiles<Wide<T>>& tiles,
                   T* out, Wide<T>* lse) {
  using C = Wide<T>;
  const WideTag<T> d;
  const std::int64_t count = std::min(kQueries, head.positions - begin);
  const std::int64_t lanes = lanes_of(count);
  const C scale = C{1} / std::sqrt(static_cast<C>(head.size));
  HWY_ALIGN C maximum[kQueries], total[kQueries] = {}, factors[kQueries];
  std::fill(maximum, maximum + kQueries, -std::numeric_limits<C>::infinity());
  load_transposed(Rows<const T>{head.queries(begin), head.stride}, count, head.size, scale,
                  tiles.query);
  std::fill(tiles.sums, tiles.sums + head.size * kQueries, C{0});

  for_each_step(begin, count, [&](const Step& step) HWY_ATTR {
    const auto keys =
        widened(head.keys(step.first), head.stride, step.count, head.size, tiles.keys);
    const auto values =
        widened(head.values(step.first), head.stride, step.count, head.size, tiles.values);
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
  transpose_tile<C, T>(head.size, count, {tiles.sums, kQueries}, {out, head.channels}, C{1});
  for (std::int64_t i = 0; i < count; ++i) lse[i] = maximum[i] + std::log(total[i]);
}

void run_attention(const KernelArguments& arguments) {
  const AttentionSizes sizes = sizes_of(arguments);
  const TensorView& qkv = arguments.inputs[0];
  with_float(qkv.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    const std::int64_t heads = sizes.batch * sizes.heads;
    const std::int64_t blocks = (sizes.positions + kQueries - 1) / kQueries;
    for_each_with_scratch(
        arguments, blocks * heads, kernels::attention_workspace(sizes, qkv.dtype),
        [&](std::int64_t task, std::byte* memory) HWY_ATTR {
          const std::int64_t index = task % heads;
          const std::int64_t begin = task / heads * kQueries;
          const Head<T> head(sizes, qkv.as<const T>(), index);
          Scratch scratch(memory);
          const AttentionTiles<Wide<T>> tiles(scratch, head.size, std::is_same_v<T, bf16>);
          forward_block(head, begin, tiles,
                        arguments.outputs[0].as<T>() + (head.first_row + begin) * sizes.channels +
                            head.column,
                        arguments.outputs[1].as<Wide<T>>() + index * sizes.positions + begin);
        });
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_attention);

namespace kernels {

std::int64_t attention_workspace(const AttentionSizes& sizes, DType dtype) {
  const auto bytes = [&](auto wide) {
    Scratch scratch(nullptr);
    AttentionTiles<decltype(wide)>(scratch, sizes.head_size(), dtype == DType::bf16);
    return scratch.used();
  };
  return dtype == DType::f64 ? bytes(double{}) : bytes(float{});
}

void attention(const KernelArguments& arguments) { HWY_DYNAMIC_DISPATCH(run_attention)(arguments); }

}  // namespace kernels
}  // namespace ashlar
#endif
