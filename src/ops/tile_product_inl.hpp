// Products of small tiles that lie in cache, with sums held in registers: the inner loops of
// attention. Left operands are read element by element (any strides), right operands and results
// in whole vectors.
#if defined(ASHLAR_OPS_TILE_PRODUCT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef ASHLAR_OPS_TILE_PRODUCT_INL_HPP
#undef ASHLAR_OPS_TILE_PRODUCT_INL_HPP
#else
#define ASHLAR_OPS_TILE_PRODUCT_INL_HPP
#endif

#include "ops/simd_inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {

/// Element (i, k) is data[i * row + k * column].
template <typename T>
struct LeftOperand {
  const T* data;
  std::int64_t row;
  std::int64_t column;
};

/// Rows of `stride` elements.
template <typename T>
struct Rows {
  T* data;
  std::int64_t stride;
};

/// What becomes of the result's old contents, unless factors scale them.
enum class Update { overwrite, add };

/// Vectors per row of sums that fit the registers beside the operands.
template <class D>
constexpr int kTileVectors = hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) >= 64 ? 4 : 2;

/// c (M, NV vectors) = a (M, depth) b (depth, NV vectors), added to c (times `factors`).
template <int M, int NV, class D, typename T = hn::TFromD<D>>
HWY_INLINE void register_tile(D d, const LeftOperand<T>& a, Rows<const T> b, std::int64_t depth,
                              Rows<T> c, Update update, const T* factors) {
  constexpr std::int64_t kLanes = hn::MaxLanes(D());
  hn::Vec<D> sums[M][NV];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) sums[i][v] = hn::Zero(d);
  }
  const T* left = a.data;
  const T* right = b.data;
  for (std::int64_t k = 0; k < depth; ++k, left += a.column, right += b.stride) {
    hn::Vec<D> vectors[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) vectors[v] = hn::LoadU(d, right + v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const auto element = hn::Set(d, left[i * a.row]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) sums[i][v] = hn::MulAdd(element, vectors[v], sums[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      T* out = c.data + i * c.stride + v * kLanes;
      if (factors != nullptr) {
        const auto factor = hn::LoadU(d, factors + v * kLanes);
        sums[i][v] = hn::MulAdd(hn::LoadU(d, out), factor, sums[i][v]);
      } else if (update == Update::add) {
        sums[i][v] = hn::Add(sums[i][v], hn::LoadU(d, out));
      }
      hn::StoreU(sums[i][v], d, out);
    }
  }
}

template <int NV, class D, typename T = hn::TFromD<D>>
void tile_columns(D d, std::int64_t rows, LeftOperand<T> a, Rows<const T> b, std::int64_t depth,
                  Rows<T> c, Update update, const T* factors) {
  const auto advance = [&](std::int64_t m) {
    a.data += m * a.row;
    c.data += m * c.stride;
    rows -= m;
  };
  for (; rows >= 6; advance(6)) register_tile<6, NV>(d, a, b, depth, c, update, factors);
  for (; rows >= 4; advance(4)) register_tile<4, NV>(d, a, b, depth, c, update, factors);
  for (; rows >= 2; advance(2)) register_tile<2, NV>(d, a, b, depth, c, update, factors);
  if (rows > 0) register_tile<1, NV>(d, a, b, depth, c, update, factors);
}

/// c (rows, columns) updated with a (rows, depth) b (depth, columns); columns fill whole vectors.
/// With `factors`, one per column: c = c factors + a b.
template <class D, typename T = hn::TFromD<D>>
void tile_product(D d, std::int64_t rows, std::int64_t columns, std::int64_t depth,
                  LeftOperand<T> a, Rows<const T> b, Rows<T> c, Update update,
                  const T* factors = nullptr) {
  constexpr std::int64_t kLanes = hn::MaxLanes(D());
  constexpr std::int64_t kWidth = kTileVectors<D> * kLanes;
  std::int64_t j = 0;
  const auto at = [&](auto* p) { return p == nullptr ? p : p + j; };
  for (; j + kWidth <= columns; j += kWidth)
    tile_columns<kTileVectors<D>>(d, rows, a, Rows<const T>{b.data + j, b.stride}, depth,
                                  Rows<T>{c.data + j, c.stride}, update, at(factors));
  const std::int64_t rest = (columns - j) / kLanes;
  const Rows<const T> b_rest{b.data + j, b.stride};
  const Rows<T> c_rest{c.data + j, c.stride};
  if (rest == 3) tile_columns<3>(d, rows, a, b_rest, depth, c_rest, update, at(factors));
  if (rest == 2) tile_columns<2>(d, rows, a, b_rest, depth, c_rest, update, at(factors));
  if (rest == 1) tile_columns<1>(d, rows, a, b_rest, depth, c_rest, update, at(factors));
}

#if HWY_TARGET != HWY_SCALAR
/// A block of 4 x 4, transposed in registers.
template <typename In, typename Out>
HWY_INLINE void transpose_block(Rows<const In> in, Rows<Out> out, float factor) {
  const hn::CappedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pair;
  const auto row = [&](std::int64_t i) HWY_ATTR {
    return hn::Mul(hn::Set(d, factor), load(d, in.data + i * in.stride));
  };
  const auto put = [&](std::int64_t i, auto ab, auto ef) HWY_ATTR {
    const auto a = hn::BitCast(pair, ab), e = hn::BitCast(pair, ef);
    store(d, hn::BitCast(d, hn::InterleaveLower(pair, a, e)), out.data + i * out.stride);
    store(d, hn::BitCast(d, hn::InterleaveUpper(pair, a, e)), out.data + (i + 1) * out.stride);
  };
  const auto a = row(0), b = row(1), e = row(2), f = row(3);
  put(0, hn::InterleaveLower(d, a, b), hn::InterleaveLower(d, e, f));
  put(2, hn::InterleaveUpper(d, a, b), hn::InterleaveUpper(d, e, f));
}
#endif

/// out (columns, rows) = factor * in (rows, columns), transposed.
template <typename In, typename Out>
void transpose_tile(std::int64_t rows, std::int64_t columns, Rows<const In> in, Rows<Out> out,
                    Wide<In> factor) {
  const auto plainly = [&](std::int64_t first, std::int64_t end, std::int64_t column) {
    for (std::int64_t i = first; i < end; ++i)
      for (std::int64_t j = column; j < columns; ++j)
        out.data[j * out.stride + i] =
            static_cast<Out>(factor * static_cast<Wide<In>>(in.data[i * in.stride + j]));
  };
  std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (std::is_same_v<Wide<In>, float>) {
    for (; i + 4 <= rows; i += 4) {
      std::int64_t j = 0;
      for (; j + 4 <= columns; j += 4)
        transpose_block(Rows<const In>{in.data + i * in.stride + j, in.stride},
                        Rows<Out>{out.data + j * out.stride + i, out.stride}, factor);
      plainly(i, i + 4, j);
    }
  }
#endif
  plainly(i, rows, 0);
}

}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
