#include "ops/embedding_kernels.hpp"

#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/embedding_kernels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/check.hpp"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kRowsPerTask = 64;
constexpr std::int64_t kColumns = 512;  // summed side by side

template <typename T>
void look_up(const KernelArguments& a, std::int64_t begin, std::int64_t end) {
  const WideTag<T> d;
  const auto* tokens = a.inputs[0].as<std::int32_t>();
  const TensorView& table = a.inputs[1];
  const std::int64_t positions = a.inputs[0].shape[-1], n = table.shape[1];
  for (std::int64_t r = begin; r < end; ++r) {
    require(0 <= tokens[r] && tokens[r] < table.shape[0],
            "embedding: token {} at index {} is not in the table of {} rows", tokens[r], r,
            table.shape[0]);
    const T* row = table.as<T>() + tokens[r] * n;
    T* out = a.outputs[0].as<T>() + r * n;
    if (a.inputs[2].data == nullptr) {
      std::copy(row, row + n, out);
      continue;
    }
    const T* place = a.inputs[2].as<T>() + r % positions * n;
    for_each_vector(d, n, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
      store_upto(d, hn::Add(load_upto(d, row + i, m), load_upto(d, place + i, m)), out + i, m);
    });
  }
}

void run_embedding(const KernelArguments& a) {
  with_float(a.outputs[0].dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_chunk(a.context, a.inputs[0].elements(), kRowsPerTask,
                   [&](std::int64_t begin, std::int64_t end) { look_up<T>(a, begin, end); });
  });
}

/// out (n) = the sum of `count` rows of dy, row(i) giving the index of the i-th.
template <typename T, typename Out, class Row>
void sum_rows(const T* dy, std::int64_t n, std::int64_t count, const Row& row, Out* out) {
  if (count == 0) return std::fill(out, out + n, static_cast<Out>(Wide<Out>{0}));
  const WideTag<T> d;
  HWY_ALIGN Wide<T> sums[kColumns];
  for (std::int64_t column = 0; column < n; column += kColumns) {
    const std::int64_t width = std::min(kColumns, n - column);
    std::fill(sums, sums + width, Wide<T>{0});
    for (std::int64_t k = 0; k < count; ++k) {
      const T* from = dy + row(k) * n + column;
      for_each_vector(d, width, [&](std::int64_t i, std::int64_t m) HWY_ATTR {
        store_upto(d, hn::Add(load_upto(d, sums + i, m), load_upto(d, from + i, m)), sums + i, m);
      });
    }
    for (std::int64_t i = 0; i < width; ++i)
      out[column + i] = static_cast<Out>(static_cast<Wide<Out>>(sums[i]));
  }
}

void run_embedding_tokens(const KernelArguments& a) {
  const TensorView& table = a.outputs[0];
  const auto* tokens = a.inputs[0].as<std::int32_t>();
  const std::int64_t count = a.inputs[0].elements(), n = table.shape[1];
  auto* keys = reinterpret_cast<std::uint64_t*>(a.workspace);  // token, then index: a stable order
  for (std::int64_t i = 0; i < count; ++i) {
    require(0 <= tokens[i] && tokens[i] < table.shape[0],
            "embedding: token {} at index {} is not in the table of {} rows", tokens[i], i,
            table.shape[0]);
    keys[i] = static_cast<std::uint64_t>(tokens[i]) << 32 | static_cast<std::uint64_t>(i);
  }
  std::sort(keys, keys + count);
  with_float(a.inputs[1].dtype, [&](auto from) {
    with_float(table.dtype, [&](auto to) {
      using T = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      for_each_chunk(
          a.context, table.shape[0], kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
            const auto* key =
                std::lower_bound(keys, keys + count, static_cast<std::uint64_t>(begin) << 32);
            for (std::int64_t row = begin; row < end; ++row) {
              const auto* first = key;
              while (key != keys + count && *key >> 32 == static_cast<std::uint64_t>(row)) ++key;
              sum_rows(
                  a.inputs[1].as<const T>(), n, key - first,
                  [&](std::int64_t k) { return static_cast<std::int64_t>(first[k] & 0xffffffffU); },
                  table.as<Out>() + row * n);
            }
          });
    });
  });
}

void run_embedding_positions(const KernelArguments& a) {
  const TensorView& dy = a.inputs[0];
  const TensorView& table = a.outputs[0];
  const std::int64_t positions = dy.shape[-2], n = dy.shape[-1];
  const std::int64_t samples = positions * n == 0 ? 0 : dy.elements() / (positions * n);
  with_float(dy.dtype, [&](auto from) {
    with_float(table.dtype, [&](auto to) {
      using T = typename decltype(from)::type;
      using Out = typename decltype(to)::type;
      for_each_chunk(
          a.context, table.shape[0], kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t)
              sum_rows(
                  dy.as<const T>(), n, t < positions ? samples : 0,
                  [&](std::int64_t b) { return b * positions + t; }, table.as<Out>() + t * n);
          });
    });
  });
}

}  // namespace
}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_embedding);
HWY_EXPORT(run_embedding_tokens);
HWY_EXPORT(run_embedding_positions);

namespace kernels {
void embedding(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_embedding)(a); }
void embedding_tokens(const KernelArguments& a) { HWY_DYNAMIC_DISPATCH(run_embedding_tokens)(a); }
std::int64_t embedding_tokens_workspace(std::int64_t tokens) {
  return tokens * static_cast<std::int64_t>(sizeof(std::uint64_t));
}
void embedding_positions(const KernelArguments& a) {
  HWY_DYNAMIC_DISPATCH(run_embedding_positions)(a);
}
}  // namespace kernels
}  // namespace ashlar
#endif
