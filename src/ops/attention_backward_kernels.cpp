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
/// and writes their own gradient to dquery. Rows of out and dout (queries, D) are `channels` apart.
template <typename T>
void backward_block(const Head<const T>& head, std::int64_t begin,
                    const BackwardTiles<Wide<T>>& tiles, const T* out, const T* dout,
                    std::int64_t channels, const Wide<T>* lse, Rows<T> dquery) {
  using C = Wide<T>;
  const WideTag<T> d;
  const std::int64_t count = std::min(kQueries, head.positions - begin);
  const std::int64_t lanes = lanes_of(count);
  const std::int64_t width = padded(head.size);
  const C scale = C{1} / std::sqrt(static_cast<C>(head.size));
  HWY_ALIGN C shift[kQueries] = {}, delta[kQueries] = {};
  load_rows<T>(head.queries(begin), head.query_stride, count, head.size, width, scale,
               tiles.query_rows);
  load_rows<T>(dout, channels, count, head.size, width, C{1}, tiles.dout_rows);
  load_transposed<C>({tiles.query_rows, width}, count, head.size, C{1}, tiles.query);
  load_transposed<C>({tiles.dout_rows, width}, count, head.size, C{1}, tiles.dout);
  std::fill(tiles.sums, tiles.sums + head.size * kQueries, C{0});
  for (std::int64_t i = 0; i < count; ++i) {
    shift[i] = lse[i];
    delta[i] = dot<T>(out + i * channels, tiles.dout_rows + i * width, head.size);
  }

  for_each_step(begin, count, [&](const Step& step) HWY_ATTR {
    const auto keys =
        widened<T>(head.keys(step.first), head.key_stride, step.count, head.size, tiles.keys);
    const auto values =
        widened<T>(head.values(step.first), head.key_stride, step.count, head.size, tiles.values);
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
  transpose_tile<C, T>(head.size, count, {tiles.sums, kQueries}, dquery, scale);
}

/// Rows (positions, width) of a head's gradient into the result.
template <typename T>
void store_rows(const Wide<T>* from, std::int64_t positions, std::int64_t size, Rows<T> to) {
  const WideTag<T> d;
  for (std::int64_t t = 0; t < positions; ++t)
    for_each_vector(d, size, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
      store_upto(d, load_upto(d, from + t * padded(size) + j, n), to.data + t * to.stride + j, n);
    });
}

/// What forward left and what comes back, all (rows, C) but lse (heads, rows).
template <typename T>
struct Results {
  const T* out;
  const Wide<T>* lse;
  const T* dout;
};

/// One thread sums the gradients of a head of keys and values over its queries, in their order.
template <typename T>
void backward(const KernelArguments& arguments, const Sequences& sequences,
              const Operands<const T>& from, const Results<T>& results, const Operands<T>& to) {
  const AttentionSizes& sizes = sequences.sizes;
  const std::int64_t channels = sizes.channels();
  for_each_with_scratch(
      arguments, sizes.sequences * sizes.kv_heads,
      kernels::attention_backward_workspace(sizes, arguments.inputs[0].dtype),
      [&](std::int64_t task, std::byte* memory) HWY_ATTR {
        const std::int64_t sequence = task / sizes.kv_heads;
        const std::int64_t first = task % sizes.kv_heads * sizes.group();
        const Head<T> gradient(sequences, to, sequence, first);
        const std::int64_t positions = gradient.positions;
        Scratch scratch(memory);
        const BackwardTiles<Wide<T>> tiles(scratch, sizes, std::is_same_v<T, bf16>);
        std::fill(tiles.dkeys, tiles.dkeys + positions * padded(sizes.head_size), Wide<T>{0});
        std::fill(tiles.dvalues, tiles.dvalues + positions * padded(sizes.head_size), Wide<T>{0});
        for (std::int64_t h = first; h < first + sizes.group(); ++h) {
          const Head<const T> head(sequences, from, sequence, h);
          const Head<T> result(sequences, to, sequence, h);
          for (std::int64_t begin = 0; begin < positions; begin += kQueries) {
            const std::int64_t row = head.first_row + begin, at = row * channels + head.column;
            backward_block<T>(head, begin, tiles, results.out + at, results.dout + at, channels,
                              results.lse + h * sizes.rows + row,
                              {result.queries(begin), result.query_stride});
          }
        }
        store_rows<T>(tiles.dkeys, positions, gradient.size, {gradient.key, gradient.key_stride});
        store_rows<T>(tiles.dvalues, positions, gradient.size,
                      {gradient.value, gradient.key_stride});
      });
}

/// Of out, lse, dout.
template <typename T>
Results<T> results_of(std::span<const TensorView> inputs) {
  return {inputs[0].as<const T>(), inputs[1].as<const Wide<T>>(), inputs[2].as<const T>()};
}

void run_attention_backward(const KernelArguments& arguments) {
  const TensorView& qkv = arguments.inputs[0];
  const AttentionSizes sizes = packed_sizes(qkv.shape, arguments.attributes);
  with_float(qkv.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    backward<T>(arguments, {sizes}, packed_operands<const T>(qkv, sizes),
                results_of<T>(arguments.inputs.subspan(1)),
                packed_operands<T>(arguments.outputs[0], sizes));
  });
}

void run_grouped_attention_backward(const KernelArguments& arguments) {
  const TensorView& q = arguments.inputs[0];
  const AttentionSizes sizes = grouped_sizes(q.shape, arguments.attributes);
  const Sequences sequences = sequences_of(sizes, arguments.inputs[3]);
  with_float(q.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    backward<T>(arguments, sequences, separate_operands<const T>(arguments.inputs.first(3), sizes),
                results_of<T>(arguments.inputs.subspan(4)),
                separate_operands<T>(arguments.outputs, sizes));
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_attention_backward);
HWY_EXPORT(run_grouped_attention_backward);

namespace kernels {

std::int64_t attention_backward_workspace(const AttentionSizes& sizes, DType dtype) {
  const auto bytes = [&](auto wide) {
    Scratch scratch(nullptr);
    BackwardTiles<decltype(wide)>(scratch, sizes, size_of(dtype) == 2);
    return scratch.used();
  };
  return dtype == DType::f64 ? bytes(double{}) : bytes(float{});
}

void attention_backward(const KernelArguments& arguments) {
  HWY_DYNAMIC_DISPATCH(run_attention_backward)(arguments);
}
void grouped_attention_backward(const KernelArguments& arguments) {
  HWY_DYNAMIC_DISPATCH(run_grouped_attention_backward)(arguments);
}

}  // namespace kernels
}  // namespace ashlar
#endif
