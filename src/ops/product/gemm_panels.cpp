// bf16 products on processors without them: panels of bounded size are widened to f32, multiplied
// by OpenBLAS and summed in f32. Whole f32 operands never exist.
#include <algorithm>

#include "ops/product/gemm.hpp"
#include "ops/simd_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/product/gemm_panels.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/simd_inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace ashlar::HWY_NAMESPACE {

template <typename From, typename To>
void convert_rows(const From* from, std::int64_t from_leading, To* to, std::int64_t to_leading,
                  std::int64_t rows, std::int64_t columns) {
  const hn::ScalableTag<float> d;
  for (std::int64_t i = 0; i < rows; ++i) {
    for_each_vector(d, columns, [&](std::int64_t j, std::int64_t n) HWY_ATTR {
      store_upto(d, load_upto(d, from + i * from_leading + j, n), to + i * to_leading + j, n);
    });
  }
}

void widen_rows(const bf16* from, std::int64_t from_leading, float* to, std::int64_t to_leading,
                std::int64_t rows, std::int64_t columns) {
  convert_rows(from, from_leading, to, to_leading, rows, columns);
}
void round_rows(const float* from, std::int64_t from_leading, bf16* to, std::int64_t to_leading,
                std::int64_t rows, std::int64_t columns) {
  convert_rows(from, from_leading, to, to_leading, rows, columns);
}

}  // namespace ashlar::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ashlar {
HWY_EXPORT(widen_rows);
HWY_EXPORT(round_rows);

namespace {

constexpr std::int64_t kRows = 256, kColumns = 512, kDepth = 512;  // of a panel, at most

class PanelGemm final : public GemmKernel {
 public:
  explicit PanelGemm(const Gemm& gemm)
      : gemm_(gemm),
        rows_(std::min(kRows, gemm.m)),
        columns_(std::min(kColumns, gemm.n)),
        depth_(std::min(kDepth, gemm.k)) {
    for (int last = 0; last < 8; ++last) {
      const auto extent = [last](int axis, std::int64_t whole, std::int64_t panel) {
        return (last >> axis & 1) != 0 ? (whole - 1) % panel + 1 : panel;
      };
      kernels_[static_cast<std::size_t>(last)] =
          make_openblas_gemm({.m = extent(0, gemm.m, rows_),
                              .n = extent(1, gemm.n, columns_),
                              .k = extent(2, gemm.k, depth_),
                              .transpose_a = gemm.transpose_a,
                              .transpose_b = gemm.transpose_b,
                              .lda = gemm.transpose_a ? rows_ : depth_,
                              .ldb = gemm.transpose_b ? depth_ : columns_,
                              .ldc = columns_,
                              .accumulate = true});
    }
  }

  std::int64_t workspace_bytes() const override {
    return 4 * (a_elements() + b_elements() + rows_ * columns_);
  }

  void run(const std::byte* a, const std::byte* b, const std::byte* bias, std::byte* c,
           std::byte* workspace) const override {
    for (std::int64_t i = 0; i < gemm_.m; i += rows_) {
      for (std::int64_t j = 0; j < gemm_.n; j += columns_)
        run_tile(i, j, reinterpret_cast<const bf16*>(a), reinterpret_cast<const bf16*>(b),
                 reinterpret_cast<const bf16*>(bias), c, reinterpret_cast<float*>(workspace));
    }
  }

 private:
  std::int64_t a_elements() const { return (rows_ * depth_ + 15) / 16 * 16; }
  std::int64_t b_elements() const { return (columns_ * depth_ + 15) / 16 * 16; }

  void run_tile(std::int64_t i, std::int64_t j, const bf16* a, const bf16* b, const bf16* bias,
                std::byte* c, float* panel_a) const {
    const std::int64_t m = std::min(rows_, gemm_.m - i), n = std::min(columns_, gemm_.n - j);
    float* panel_b = panel_a + a_elements();
    float* tile = panel_b + b_elements();
    begin_tile(i, j, m, n, bias, c, tile);
    for (std::int64_t l = 0; l < gemm_.k; l += depth_) {
      const std::int64_t k = std::min(depth_, gemm_.k - l);
      widen_panel(a, gemm_.lda, gemm_.transpose_a, i, l, m, k, panel_a, rows_, depth_);
      widen_panel(b, gemm_.ldb, gemm_.transpose_b, l, j, k, n, panel_b, depth_, columns_);
      const int last = (m < rows_ ? 1 : 0) | (n < columns_ ? 2 : 0) | (k < depth_ ? 4 : 0);
      kernels_[static_cast<std::size_t>(last)]->run(
          reinterpret_cast<const std::byte*>(panel_a), reinterpret_cast<const std::byte*>(panel_b),
          nullptr, reinterpret_cast<std::byte*>(tile), nullptr);
    }
    if (gemm_.result == DType::bf16) {
      HWY_DYNAMIC_DISPATCH(round_rows)
      (tile, columns_, reinterpret_cast<bf16*>(c) + i * gemm_.ldc + j, gemm_.ldc, m, n);
    } else {
      copy_rows(tile, columns_, reinterpret_cast<float*>(c) + i * gemm_.ldc + j, gemm_.ldc, m, n);
    }
  }

  void begin_tile(std::int64_t i, std::int64_t j, std::int64_t m, std::int64_t n, const bf16* bias,
                  const std::byte* c, float* tile) const {
    if (gemm_.accumulate) {
      const float* from = reinterpret_cast<const float*>(c) + i * gemm_.ldc + j;
      return copy_rows(from, gemm_.ldc, tile, columns_, m, n);
    }
    for (std::int64_t row = 0; row < m; ++row) {
      for (std::int64_t column = 0; column < n; ++column)
        tile[row * columns_ + column] = bias == nullptr ? 0.0F : float{bias[j + column]};
    }
  }

  static void copy_rows(const float* from, std::int64_t from_leading, float* to,
                        std::int64_t to_leading, std::int64_t m, std::int64_t n) {
    for (std::int64_t row = 0; row < m; ++row)
      std::copy_n(from + row * from_leading, n, to + row * to_leading);
  }

  /// Rows [i, i + m) and columns [j, j + n) of an operand, which lies transposed or not.
  static void widen_panel(const bf16* from, std::int64_t leading, bool transposed, std::int64_t i,
                          std::int64_t j, std::int64_t m, std::int64_t n, float* to,
                          std::int64_t panel_rows, std::int64_t panel_columns) {
    if (transposed) {
      std::swap(i, j);
      std::swap(m, n);
    }
    HWY_DYNAMIC_DISPATCH(widen_rows)
    (from + i * leading + j, leading, to, transposed ? panel_rows : panel_columns, m, n);
  }

  Gemm gemm_;
  std::int64_t rows_, columns_, depth_;
  std::array<std::unique_ptr<GemmKernel>, 8> kernels_;  // bit set: the last panel of an axis
};

}  // namespace

std::unique_ptr<GemmKernel> make_panel_gemm(const Gemm& gemm) {
  return std::make_unique<PanelGemm>(gemm);
}

}  // namespace ashlar
#endif
