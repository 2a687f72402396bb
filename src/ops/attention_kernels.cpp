// Causal attention by blocks (Dao et al., arXiv:2205.14135, algorithm 1; backward as in
// arXiv:2307.08691, section 3.1.2). Scores are kept transposed, keys down and queries along the
// lanes: the softmax then needs no sums across lanes, and keys and values are read as they lie.
#include "ops/attention_kernels.hpp"

#include "ashlar/memory_resource.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/tile_product_inl.hpp"
#include "ops/with_dtype.hpp"

#ifndef ASHLAR_OPS_ATTENTION_BLOCKS
#define ASHLAR_OPS_ATTENTION_BLOCKS
namespace ashlar {

inline constexpr std::int64_t kQueries = 64;   // per block
inline constexpr std::int64_t kKeys = 64;      // per step below the diagonal
inline constexpr std::int64_t kDiagonal = 16;  // keys per step on it

/// Channels of a head, padded to whole vectors.
inline std::int64_t padded(std::int64_t head_size) { return (head_size + 15) / 16 * 16; }

/// Hands out aligned parts of a thread's scratch; with no memory it counts.
class Scratch {
 public:
  explicit Scratch(std::byte* memory) : memory_(memory) {}
  template <typename T>
  T* take(std::int64_t count) {
    T* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += align_up(count * static_cast<std::int64_t>(sizeof(T)));
    return part;
  }
  std::int64_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::int64_t used_ = 0;
};

/// Tiles that forward and backward share. `copy_keys`: keys and values are widened first.
template <typename C>
struct AttentionTiles {
  AttentionTiles(Scratch& scratch, std::int64_t head_size, bool copy_keys)
      : query(scratch.take<C>(head_size * kQueries)),
        scores(scratch.take<C>(kKeys * kQueries)),
        sums(scratch.take<C>(head_size * kQueries)),
        keys(copy_keys ? scratch.take<C>(kKeys * head_size) : nullptr),
        values(copy_keys ? scratch.take<C>(kKeys * head_size) : nullptr) {}
  C* query;   // (D, queries), scaled
  C* scores;  // (keys, queries)
  C* sums;    // (D, queries): output, or the queries' gradient
  C* keys;    // (keys, D)
  C* values;  // (keys, D)
};

template <typename C>
struct BackwardTiles : AttentionTiles<C> {
  BackwardTiles(Scratch& scratch, const AttentionSizes& sizes, bool copy_keys)
      : AttentionTiles<C>(scratch, sizes.head_size(), copy_keys),
        slopes(scratch.take<C>(kKeys * kQueries)),
        dout(scratch.take<C>(sizes.head_size() * kQueries)),
        query_rows(scratch.take<C>(kQueries * padded(sizes.head_size()))),
        dout_rows(scratch.take<C>(kQueries * padded(sizes.head_size()))),
        dkeys(scratch.take<C>(sizes.positions * padded(sizes.head_size()))),
        dvalues(scratch.take<C>(sizes.positions * padded(sizes.head_size()))) {}
  C* slopes;      // (keys, queries): dP, then dS
  C* dout;        // (D, queries)
  C* query_rows;  // (queries, padded D), scaled
  C* dout_rows;   // (queries, padded D)
  C* dkeys;       // (T, padded D)
  C* dvalues;     // (T, padded D)
};

}  // namespace ashlar
#endif

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

/// One head of one sample.
template <typename T>
struct Head {
  Head(const AttentionSizes& sizes, const T* qkv, std::int64_t index)
      : size(sizes.head_size()),
        positions(sizes.positions),
        channels(sizes.channels),
        stride(3 * sizes.channels),
        column(index % sizes.heads * size),
        first_row(index / sizes.heads * positions),
        query(qkv + first_row * stride + column) {}

  const T* queries(std::int64_t t) const { return query + t * stride; }
  const T* keys(std::int64_t t) const { return query + channels + t * stride; }
  const T* values(std::int64_t t) const { return query + 2 * channels + t * stride; }

  std::int64_t size, positions, channels, stride, column, first_row;
  const T* query;
};

/// Keys [first, first + count) against the lanes [lane, lanes) of a block of queries.
struct Step {
  std::int64_t first;
  std::int64_t count;
  std::int64_t lane;
  bool masked;
};

/// Calls body(Step) for all keys that the queries [begin, begin + count) see, in order.
template <class Body>
HWY_INLINE void for_each_step(std::int64_t begin, std::int64_t count, const Body& body) {
  for (std::int64_t k = 0; k < begin; k += kKeys) body(Step{k, kKeys, 0, false});
  for (std::int64_t k = 0; k < count; k += kDiagonal)
    body(Step{begin + k, std::min(kDiagonal, count - k), k, true});
}

/// Lanes in use: whole groups of kDiagonal.
inline std::int64_t lanes_of(std::int64_t queries) {
  return (queries + kDiagonal - 1) / kDiagonal * kDiagonal;
}

/// Rows as they lie, or widened into `tile`.
template <typename T>
Rows<const Wide<T>> widened(const T* rows, std::int64_t stride, std::int64_t count,
                            std::int64_t size, Wide<T>* tile) {
  if constexpr (std::is_same_v<T, Wide<T>>) {
    return {rows, stride};
  } else {
    const WideTag<T> d;
    for (std::int64_t i = 0; i < count; ++i)
      for_each_vector(d, size, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
        store_upto(d, load_upto(d, rows + i * stride + j, n), tile + i * size + j, n);
      });
    return {tile, size};
  }
}

/// tile (D, kQueries) = factor * rows (count, D) transposed, zeros in the lanes without a query.
template <typename T>
void load_transposed(Rows<const T> rows, std::int64_t count, std::int64_t size, Wide<T> factor,
                     Wide<T>* tile) {
  transpose_tile<T, Wide<T>>(count, size, rows, {tile, kQueries}, factor);
  for (std::int64_t j = 0; count < kQueries && j < size; ++j)
    std::fill(tile + j * kQueries + count, tile + (j + 1) * kQueries, Wide<T>{0});
}

/// Lanes whose query sees `key`; both count from the block's first query.
template <class D>
HWY_INLINE auto visible(D d, std::int64_t key, std::int64_t lane) {
  using C = hn::TFromD<D>;
  return hn::Ge(hn::Iota(d, static_cast<C>(lane)), hn::Set(d, static_cast<C>(key)));
}

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
                 Rows<C>{tiles.sums + step.lane, kQueries}, Update::scale, factors + step.lane);
  });

  for (std::int64_t j = 0; j < head.size; ++j)
    for (std::int64_t lane = 0; lane < lanes; lane += static_cast<std::int64_t>(hn::Lanes(d))) {
      C* sum = tiles.sums + j * kQueries + lane;
      hn::Store(hn::Div(hn::Load(d, sum), hn::Load(d, total + lane)), d, sum);
    }
  transpose_tile<C, T>(head.size, count, {tiles.sums, kQueries}, {out, head.channels}, C{1});
  for (std::int64_t i = 0; i < count; ++i) lse[i] = maximum[i] + std::log(total[i]);
}

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

/// Calls body(task, scratch) with a thread's own scratch; task i runs on thread i mod threads.
template <class Body>
void for_each_with_scratch(const KernelArguments& arguments, std::int64_t tasks,
                           std::int64_t scratch_bytes, const Body& body) {
  const ThreadPool* pool = arguments.context.pool;
  const auto* plan = static_cast<const AttentionPlan*>(arguments.plan);
  const int threads =
      pool == nullptr || plan == nullptr ? 1 : std::min(pool->threads(), plan->threads);
  for_each_task(arguments.context, threads, [&](std::int64_t thread) {
    for (std::int64_t task = thread; task < tasks; task += threads)
      body(task, arguments.workspace + thread * scratch_bytes);
  });
}

AttentionSizes sizes_of(const KernelArguments& arguments) {
  const Shape& shape = arguments.inputs[0].shape;
  return {shape[0], shape[1], shape[2] / 3, arguments.attributes.integer("heads")};
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
HWY_EXPORT(run_attention);
HWY_EXPORT(run_attention_backward);

namespace kernels {
namespace {

/// Calls f(C{}) with the type that `dtype` is computed in.
template <class F>
std::int64_t with_wide(DType dtype, const F& f) {
  return dtype == DType::f64 ? f(double{}) : f(float{});
}

}  // namespace

std::int64_t attention_workspace(const AttentionSizes& sizes, DType dtype) {
  return with_wide(dtype, [&](auto wide) {
    Scratch scratch(nullptr);
    AttentionTiles<decltype(wide)>(scratch, sizes.head_size(), dtype == DType::bf16);
    return scratch.used();
  });
}

std::int64_t attention_backward_workspace(const AttentionSizes& sizes, DType dtype) {
  return with_wide(dtype, [&](auto wide) {
    Scratch scratch(nullptr);
    BackwardTiles<decltype(wide)>(scratch, sizes, dtype == DType::bf16);
    return scratch.used();
  });
}

void attention(const KernelArguments& arguments) { HWY_DYNAMIC_DISPATCH(run_attention)(arguments); }
void attention_backward(const KernelArguments& arguments) {
  HWY_DYNAMIC_DISPATCH(run_attention_backward)(arguments);
}

}  // namespace kernels
}  // namespace ashlar
#endif
