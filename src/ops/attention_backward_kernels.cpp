// The backward of causal attention: probabilities are computed again by blocks (Dao,
// arXiv:2307.08691, section 3.1.2).
#include "ops/attention_kernels.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_backward_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

/// rows (count, size) times factor, widened, zero-padded to `width`.
template <typename T>
void load_rows(const T* from, std::int64_t stride, std::int64_t count, std::int64_t size,
               std::int64_t width, Wide<T> factor, Wide<T>* tile) {
  const WideTag<T> d;
  for (std::int64_t i = 0; i < count; ++i) {
    std::fill(tile + i * width + size, tile + (i + 1) * width, Wide<T>{0});
    for_each_vector(d, size, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
      const auto v = hn::Mul(load_upto(d, from + i * stride + j, n), hn::Set(d, factor));
      store_upto(d, v, tile + i * width + j, n);
    });
  }
}

template <typename T>
Wide<T> dot(const T* a, const Wide<T>* b, std::int64_t size) {
  const WideTag<T> d;
  auto sum = hn::Zero(d);
  for_each_vector(d, size, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
    sum = hn::MulAdd(load_upto(d, a + j, n), load_upto(d, b + j, n), sum);
  });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// scores become probabilities P, slopes (dP) become P (dP - delta).
template <class D, typename C = hn::TFromD<D>>
void softmax_slopes(D d, const Step& step, std::int64_t begin, std::int64_t lanes, C* scores,
                    C* slopes, const C* lse, const C* delta) {
  for (std::int64_t lane = step.lane; lane < lanes;
       lane += static_cast<std::int64_t>(hn::Lanes(d))) {
    const bool masks = step.masked && lane < step.lane + kDiagonal;
    const auto shift = hn::Load(d, lse + lane);
    const auto centre = hn::Load(d, delta + lane);
    for (std::int64_t i = 0; i < step.count; ++i) {
      C* score = scores + i * kQueries + lane;
      C* slope = slopes + i * kQueries + lane;
      auto p = exp_of(d, hn::Sub(hn::Load(d, score), shift));
      if (masks) p = hn::IfThenElseZero(visible(d, step.first - begin + i, lane), p);
      hn::Store(p, d, score);
      hn::Store(hn::Mul(p, hn::Sub(hn::Load(d, slope), centre)), d, slope);
    }
  }
}

/// Adds the contributions of the queries [begin, begin + kQueries) to the head's dkeys and dvalues,
/// and writes their own gradient to dquery (queries, D).
template <typename T>
void backward_block(const Head<T>& head, std::int64_t begin, const BackwardTiles<Wide<T>>& tiles,
                    const T* out, const T* dout, const Wide<T>* lse, T* dquery) {
  using C = Wide<T>;
  const WideTag<T> d;
  const std::int64_t count = std::min(kQueries, head.positions - begin);
  const std::int64_t lanes = lanes_of(count);
  const std::int64_t width = padded(head.size);
  const C scale = C{1} / std::sqrt(static_cast<C>(head.size));
  HWY_ALIGN C shift[kQueries] = {}, delta[kQueries] = {};
  load_rows(head.queries(begin), head.stride, count, head.size, width, scale, tiles.query_rows);
  load_rows(dout, head.channels, count, head.size, width, C{1}, tiles.dout_rows);
  load_transposed<C>({tiles.query_rows, width}, count, head.size, C{1}, tiles.query);
  load_transposed<C>({tiles.dout_rows, width}, count, head.size, C{1}, tiles.dout);
  std::fill(tiles.sums, tiles.sums + head.size * kQueries, C{0});
  for (std::int64_t i = 0; i < count; ++i) {
    shift[i] = lse[i];
    delta[i] = dot(out + i * head.channels, tiles.dout_rows + i * width, head.size);
  }

  for_each_step(begin, count, [&](const Step& step) HWY_ATTR {
    const auto keys =
        widened(head.keys(step.first), head.stride, step.count, head.size, tiles.keys);
    const auto values =
        widened(head.values(step.first), head.stride, step.count, head.size, tiles.values);
    const std::int64_t columns = lanes - step.lane, queries = count - step.lane;
    const Rows<C> scores{tiles.scores + step.lane, kQueries};
    const Rows<C> slopes{tiles.slopes + step.lane, kQueries};
    tile_product(d, step.count, columns, head.size, LeftOperand<C>{keys.data, keys.stride, 1},
                 Rows<const C>{tiles.query + step.lane, kQueries}, scores, Update::overwrite);
    tile_product(d, step.count, columns, head.size, LeftOperand<C>{values.data, values.stride, 1},
                 Rows<const C>{tiles.dout + step.lane, kQueries}, slopes, Update::overwrite);
    softmax_slopes(d, step, begin, lanes, tiles.scores, tiles.slopes, shift, delta);
    tile_product(d, head.size, columns, step.count, LeftOperand<C>{keys.data, 1, keys.stride},
                 Rows<const C>{slopes.data, kQueries}, Rows<C>{tiles.sums + step.lane, kQueries},
                 Update::add);
    tile_product(d, step.count, width, queries, LeftOperand<C>{scores.data, kQueries, 1},
                 Rows<const C>{tiles.dout_rows + step.lane * width, width},
                 Rows<C>{tiles.dvalues + step.first * width, width}, Update::add);
    tile_product(d, step.count, width, queries, LeftOperand<C>{slopes.data, kQueries, 1},
                 Rows<const C>{tiles.query_rows + step.lane * width, width},
                 Rows<C>{tiles.dkeys + step.first * width, width}, Update::add);
  });
  transpose_tile<C, T>(head.size, count, {tiles.sums, kQueries}, {dquery, head.stride}, scale);
}

/// Rows (positions, width) of a head's gradient into the packed result.
template <typename T>
void store_rows(const Head<T>& head, const Wide<T>* from, T* to) {
  const WideTag<T> d;
  for (std::int64_t t = 0; t < head.positions; ++t)
    for_each_vector(d, head.size, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
      store_upto(d, load_upto(d, from + t * padded(head.size) + j, n), to + t * head.stride + j, n);
    });
}

void run_attention_backward(const KernelArguments& arguments) {
  const AttentionSizes sizes = sizes_of(arguments);
  const TensorView& qkv = arguments.inputs[0];
  with_float(qkv.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    for_each_with_scratch(
        arguments, sizes.batch * sizes.heads,
        kernels::attention_backward_workspace(sizes, qkv.dtype),
        [&](std::int64_t index, std::byte* memory) HWY_ATTR {
          const Head<T> head(sizes, qkv.as<const T>(), index);
          Scratch scratch(memory);
          const BackwardTiles<Wide<T>> tiles(scratch, sizes, std::is_same_v<T, bf16>);
          const std::int64_t elements = sizes.positions * padded(head.size);
          std::fill(tiles.dkeys, tiles.dkeys + elements, Wide<T>{0});
          std::fill(tiles.dvalues, tiles.dvalues + elements, Wide<T>{0});
          T* dqkv = arguments.outputs[0].as<T>() + head.first_row * head.stride + head.column;
          for (std::int64_t begin = 0; begin < sizes.positions; begin += kQueries) {
            const std::int64_t at = (head.first_row + begin) * sizes.channels + head.column;
            backward_block(
                head, begin, tiles, arguments.inputs[1].as<const T>() + at,
                arguments.inputs[3].as<const T>() + at,
                arguments.inputs[2].as<const Wide<T>>() + index * sizes.positions + begin,
                dqkv + begin * head.stride);
          }
          store_rows(head, tiles.dkeys, dqkv + sizes.channels);
          store_rows(head, tiles.dvalues, dqkv + 2 * sizes.channels);
        });
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_attention_backward);

namespace kernels {

std::int64_t attention_backward_workspace(const AttentionSizes& sizes, DType dtype) {
  const auto bytes = [&](auto wide) {
    Scratch scratch(nullptr);
    BackwardTiles<decltype(wide)>(scratch, sizes, dtype == DType::bf16);
    return scratch.used();
  };
  return dtype == DType::f64 ? bytes(double{}) : bytes(float{});
}

void attention_backward(const KernelArguments& arguments) {
  HWY_DYNAMIC_DISPATCH(run_attention_backward)(arguments);
}

}  // namespace kernels
}  // namespace ashlar
#endif
