#include "ops/product/gelu_columns.hpp"

#include "ops/check.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/product/gelu_columns.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/gelu_inl.hpp"
#include "ops/parallel.hpp"
#include "ops/simd_inl.hpp"
#include "ops/with_dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {
namespace {

/// dh of rows [begin, end) and their sums, in the type that T is computed in.
template <typename T>
HWY_INLINE void backward_block(const T* h, const T* dy, T* dh, Wide<T>* sums, std::int64_t rows,
                               std::int64_t columns) {
  const WideTag<T> d;
  for (std::int64_t j = 0; j < columns; ++j) sums[j] = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    for_each_vector(d, columns, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
      const std::int64_t at = i * columns + j;
      const auto slope = gelu_slope(d, load_upto(d, h + at, n));
      store_upto(d, hn::Mul(slope, load_upto(d, dy + at, n)), dh + at, n);
      const auto sum = hn::Add(load_upto(d, sums + j, n), load_upto(d, dh + at, n));
      store_upto(d, sum, sums + j, n);
    });
  }
}

/// Adds the blocks' sums in order and rounds once.
template <typename Sum, typename Out>
void add_blocks(const Sum* sums, std::int64_t blocks, Out* out, std::int64_t columns) {
  for (std::int64_t j = 0; j < columns; ++j) {
    Sum total = 0;
    for (std::int64_t i = 0; i < blocks; ++i) total += sums[i * columns + j];
    out[j] = static_cast<Out>(static_cast<Wide<Out>>(total));
  }
}

}  // namespace

void run_gelu_columns(const KernelArguments& arguments) {
  const TensorView &h = arguments.inputs[0], &dy = arguments.inputs[1];
  const TensorView &dh = arguments.outputs[0], &db = arguments.outputs[1];
  const std::int64_t columns = h.shape[-1], rows = rows_of(h.shape);
  const std::int64_t blocks = (rows + kGeluBlockRows - 1) / kGeluBlockRows;
  with_float(h.dtype, [&](auto tag) HWY_ATTR {
    using T = typename decltype(tag)::type;
    auto* sums = reinterpret_cast<Wide<T>*>(arguments.workspace);
    for_each_chunk(arguments.context, rows, kGeluBlockRows,
                   [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
                     const std::int64_t at = begin * columns;
                     backward_block(h.as<T>() + at, dy.as<T>() + at, dh.as<T>() + at,
                                    sums + begin / kGeluBlockRows * columns, end - begin, columns);
                   });
    with_float(db.dtype, [&](auto out) {
      using Out = typename decltype(out)::type;
      add_blocks(sums, blocks, db.as<Out>(), columns);
    });
  });
}

}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(run_gelu_columns);

void gelu_columns_backward(const KernelArguments& arguments) {
  HWY_DYNAMIC_DISPATCH(run_gelu_columns)(arguments);
}

std::int64_t gelu_columns_workspace(std::int64_t rows, std::int64_t columns, DType dtype) {
  return (rows + kGeluBlockRows - 1) / kGeluBlockRows * columns * size_of(statistics_dtype(dtype));
}

}  // namespace ashlar
#endif
