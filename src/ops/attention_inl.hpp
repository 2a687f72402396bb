// What the forward and the backward kernel of attention share. Scores are kept transposed, keys
// down and queries along the lanes: the softmax then needs no sums across lanes, and keys and
// values are read as they lie.
#if defined(ASHLAR_OPS_ATTENTION_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_OPS_ATTENTION_INL_HPP
#undef ASHLAR_OPS_ATTENTION_INL_HPP
#else
#define ASHLAR_OPS_ATTENTION_INL_HPP
#endif

#include <span>

#include "ops/attention_sequences.hpp"
#include "ops/attention_tiles.hpp"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/tile_product_inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {

/// Where queries, keys and values (or their gradients) lie: the first row of each, and the elements
/// from row to row.
template <typename T>
struct Operands {
  T* query;
  T* key;
  T* value;
  std::int64_t query_stride;
  std::int64_t key_stride;
};

/// Side by side in qkv (rows, 3C).
template <typename T>
Operands<T> packed_operands(const TensorView& qkv, const AttentionSizes& sizes) {
  T* first = qkv.as<T>();
  const std::int64_t channels = sizes.channels();
  return {first, first + channels, first + 2 * channels, 3 * channels, 3 * channels};
}

/// In three tensors.
template <typename T>
Operands<T> separate_operands(std::span<const TensorView> qkv, const AttentionSizes& sizes) {
  return {qkv[0].as<T>(), qkv[1].as<T>(), qkv[2].as<T>(), sizes.channels(),
          sizes.kv_heads * sizes.head_size};
}

/// One head of queries of one sequence, with the keys and values that it reads.
template <typename T>
struct Head {
  Head(const Sequences& sequences, const Operands<T>& from, std::int64_t sequence,
       std::int64_t head)
      : size(sequences.sizes.head_size),
        positions(sequences.length(sequence)),
        first_row(sequences.first_row(sequence)),
        column(head * size),
        query_stride(from.query_stride),
        key_stride(from.key_stride),
        query(from.query + first_row * query_stride + column),
        key(from.key + first_row * key_stride + head / sequences.sizes.group() * size),
        value(from.value + (key - from.key)) {}

  T* queries(std::int64_t t) const { return query + t * query_stride; }
  T* keys(std::int64_t t) const { return key + t * key_stride; }
  T* values(std::int64_t t) const { return value + t * key_stride; }

  std::int64_t size, positions, first_row, column, query_stride, key_stride;
  T *query, *key, *value;
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

}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
