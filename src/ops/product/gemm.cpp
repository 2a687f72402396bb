#include "ops/product/gemm.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "ashlar/error.hpp"
#include "ops/parallel.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kGrain = 32;  // chunks are multiples of it: whole register tiles

/// The part of the product that yields `count` rows or columns.
Gemm part(Gemm gemm, bool by_rows, std::int64_t count) {
  (by_rows ? gemm.m : gemm.n) = count;
  return gemm;
}

/// There are no f16 products; what such a one would need is sized as bf16's.
Gemm sized_as(Gemm gemm) {
  for (DType* dtype : {&gemm.dtype, &gemm.result})
    if (*dtype == DType::f16) *dtype = DType::bf16;
  return gemm;
}

void check_types(const Gemm& gemm) {
  const bool known =
      gemm.dtype == DType::f32 || gemm.dtype == DType::bf16 || gemm.dtype == DType::f64;
  const bool widened = gemm.dtype == DType::bf16 && gemm.result == DType::f32;
  if (!known || (gemm.result != gemm.dtype && !widened))
    throw InvalidArgument(fmt::format("there is no product of {} with a result in {}",
                                      name_of(gemm.dtype), name_of(gemm.result)));
  if (gemm.accumulate && (gemm.bias || gemm.result == DType::bf16))
    throw InvalidArgument("a product that accumulates has an f32 or f64 result and no bias");
}

template <typename From, typename To>
void fill(const Gemm& gemm, const std::byte* bias, std::byte* c) {
  const auto* from = reinterpret_cast<const From*>(bias);
  auto* to = reinterpret_cast<To*>(c);
  for (std::int64_t i = 0; i < gemm.m; ++i) {
    for (std::int64_t j = 0; j < gemm.n; ++j)
      to[i * gemm.ldc + j] = bias == nullptr ? To{} : static_cast<To>(from[j]);
  }
}

}  // namespace

Gemm with_leading_dimensions(Gemm gemm) {
  if (gemm.lda == 0) gemm.lda = std::max<std::int64_t>(1, gemm.transpose_a ? gemm.m : gemm.k);
  if (gemm.ldb == 0) gemm.ldb = std::max<std::int64_t>(1, gemm.transpose_b ? gemm.k : gemm.n);
  if (gemm.ldc == 0) gemm.ldc = std::max<std::int64_t>(1, gemm.n);
  return gemm;
}

void fill_rows(const Gemm& gemm, const std::byte* bias, std::byte* c) {
  if (gemm.dtype == DType::f64) return fill<double, double>(gemm, bias, c);
  if (gemm.dtype == DType::f32) return fill<float, float>(gemm, bias, c);
  if (gemm.result == DType::f32) return fill<bf16, float>(gemm, bias, c);
  fill<bf16, bf16>(gemm, bias, c);
}

std::unique_ptr<GemmKernel> make_gemm_kernel(const Gemm& gemm, const GemmRule& rule,
                                             std::int64_t at_once) {
  switch (rule.backend) {
    case GemmBackend::onednn:
      return make_onednn_gemm(gemm, rule.pack_b, at_once);
    case GemmBackend::panels:
      return make_panel_gemm(gemm);
    case GemmBackend::openblas:
      break;
  }
  return make_openblas_gemm(gemm);
}

GemmPlan::GemmPlan(const Gemm& gemm, const Backend& backend)
    : GemmPlan(sized_as(gemm), gemm_rule(sized_as(gemm), backend.cpu), backend.threads) {}

GemmPlan::GemmPlan(const Gemm& gemm, const GemmRule& rule, int threads)
    : gemm_(with_leading_dimensions(gemm)), by_rows_(gemm.m >= gemm.n) {
  check_types(gemm_);
  load_openblas();
  if (gemm.m == 0 || gemm.n == 0 || gemm.k == 0) return;
  const std::int64_t count = by_rows_ ? gemm.m : gemm.n;
  const std::int64_t share = (count + threads - 1) / threads;
  chunk_ = threads <= 1 ? count : std::min(count, (share + kGrain - 1) / kGrain * kGrain);
  chunks_ = (count + chunk_ - 1) / chunk_;
  const std::int64_t rest = count - (chunks_ - 1) * chunk_;
  full_ = make_gemm_kernel(part(gemm_, by_rows_, chunk_), rule, chunks_ - (rest == chunk_ ? 0 : 1));
  if (rest != chunk_) last_ = make_gemm_kernel(part(gemm_, by_rows_, rest), rule, 1);
}

std::int64_t GemmPlan::workspace_bytes() const {
  if (chunks_ == 0) return 0;
  const std::int64_t last = last_ ? last_->workspace_bytes() : 0;
  return chunks_ * aligned(std::max(full_->workspace_bytes(), last));
}

void GemmPlan::run(const RunContext& context, const std::byte* a, const std::byte* b,
                   const std::byte* bias, std::byte* c, std::byte* workspace) const {
  if (chunks_ == 0) {
    if (!gemm_.accumulate) fill_rows(gemm_, bias, c);
    return;
  }
  for_each_task(context, chunks_, [&](std::int64_t i) { run_chunk(i, a, b, bias, c, workspace); });
}

void GemmPlan::run_chunk(std::int64_t index, const std::byte* a, const std::byte* b,
                         const std::byte* bias, std::byte* c, std::byte* workspace) const {
  const std::int64_t first = index * chunk_;
  const std::int64_t in = size_of(gemm_.dtype), out = size_of(gemm_.result);
  if (by_rows_) {
    a += first * (gemm_.transpose_a ? 1 : gemm_.lda) * in;
    c += first * gemm_.ldc * out;
  } else {
    b += first * (gemm_.transpose_b ? gemm_.ldb : 1) * in;
    c += first * out;
    if (bias != nullptr) bias += first * in;
  }
  const GemmKernel& kernel = last_ && index == chunks_ - 1 ? *last_ : *full_;
  kernel.run(a, b, bias, c, workspace + index * (workspace_bytes() / chunks_));
}

}  // namespace ashlar
