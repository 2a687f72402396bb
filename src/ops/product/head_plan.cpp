#include "ops/product/head_plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "ashlar/error.hpp"
#include "ops/check.hpp"
#include "ops/elementwise_kernels.hpp"
#include "ops/product/softmax_rows.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kChunkRows = 128;
constexpr std::int64_t kBlockRows = 1024;

std::int64_t count_targets(const Head& head, const std::int32_t* targets) {
  std::int64_t counted = 0;
  for (std::int64_t i = 0; i < head.rows; ++i) {
    require(targets[i] < head.vocabulary, "target {} at position {} is not below the {} tokens",
            targets[i], i, head.vocabulary);
    if (targets[i] >= 0) ++counted;
  }
  return counted;
}

}  // namespace

HeadPlan::HeadPlan(const Head& head, const Backend& backend)
    : head_(head),
      sums_(statistics_dtype(head.dtype)),
      chunk_(std::max<std::int64_t>(1, std::min(head.rows, kChunkRows))),
      block_(size_of(head.dtype) == 2 && head.dweight
                 ? std::max<std::int64_t>(1, std::min(head.rows, kBlockRows))
                 : chunk_),
      accumulator_(head.dweight && head.rows > block_ && head.dweight_dtype != sums_) {
  const std::int64_t v = head.vocabulary, c = head.channels;
  logits_ = by_rows({.n = v, .k = c, .transpose_b = true, .dtype = head.dtype, .result = sums_},
                    chunk_, &Gemm::m, backend);
  if (head.dx)
    dx_ = by_rows({.n = c, .k = v, .dtype = head.dtype, .result = head.dtype}, chunk_, &Gemm::m,
                  backend);
  if (head.dweight) {
    Gemm gemm{.m = v, .n = c, .transpose_a = true, .dtype = head.dtype};
    gemm.result = accumulator_ ? sums_ : head.dweight_dtype;
    dweight_first_ = by_rows(gemm, block_, &Gemm::k, backend);
    gemm.accumulate = true;
    if (head.rows > block_) dweight_next_ = by_rows(gemm, block_, &Gemm::k, backend);
  }
  logits_at_ = reserve(chunk_ * v * size_of(sums_));
  losses_at_ = reserve(chunk_ * size_of(DType::f64));
  gradient_at_ =
      gradients() && head.dtype != sums_ ? reserve(block_ * v * size_of(head.dtype)) : logits_at_;
  if (accumulator_) sum_at_ = reserve(v * c * size_of(sums_));
  std::int64_t scratch = 0;
  for (const Blocks* blocks : {&logits_, &dx_, &dweight_first_, &dweight_next_})
    scratch = std::max({scratch, blocks->whole.workspace_bytes(), blocks->last.workspace_bytes()});
  scratch_at_ = reserve(scratch);
}

HeadPlan::Blocks HeadPlan::by_rows(Gemm gemm, std::int64_t block, std::int64_t Gemm::*extent,
                                   const Backend& backend) const {
  Blocks blocks;
  gemm.*extent = block;
  if (head_.rows >= block) blocks.whole = GemmPlan(gemm, backend);
  gemm.*extent = head_.rows % block;
  blocks.last = GemmPlan(gemm, backend);
  return blocks;
}

std::int64_t HeadPlan::reserve(std::int64_t bytes) {
  const std::int64_t begin = end_;
  end_ += aligned(bytes);
  return begin;
}

double HeadPlan::run(const RunContext& context, const HeadOperands& operands,
                     std::byte* workspace) const {
  const std::int64_t counted = count_targets(head_, operands.targets);
  const double scale = counted == 0 ? 0 : operands.dloss / static_cast<double>(counted);
  const std::int64_t gradient_row = head_.vocabulary * size_of(head_.dtype);
  double total = 0;
  if (head_.dweight && head_.rows == 0)
    dweight_first_.last.run(context, nullptr, nullptr, nullptr, operands.dweight, nullptr);
  for (std::int64_t block = 0; block < head_.rows; block += block_) {
    const std::int64_t end = std::min(head_.rows, block + block_);
    for (std::int64_t first = block; first < end; first += chunk_) {
      std::byte* gradient = workspace + gradient_at_ + (first - block) * gradient_row;
      total += run_chunk(context, operands, first, std::min(chunk_, end - first), scale, gradient,
                         workspace);
    }
    if (head_.dweight) add_dweight(context, operands, block, end - block, workspace);
  }
  if (accumulator_) finish_dweight(context, operands, workspace);
  return counted == 0 ? 0 : total / static_cast<double>(counted);
}

double HeadPlan::run_chunk(const RunContext& context, const HeadOperands& operands,
                           std::int64_t first, std::int64_t rows, double scale, std::byte* gradient,
                           std::byte* workspace) const {
  const std::int64_t x_at = first * head_.channels * size_of(head_.dtype);
  std::byte* scratch = workspace + scratch_at_;
  const LogitRows logits{workspace + logits_at_, sums_, rows, head_.vocabulary,
                         operands.targets + first};
  auto* losses = reinterpret_cast<double*>(workspace + losses_at_);
  logits_.of(rows, chunk_)
      .run(context, operands.x + x_at, operands.weight, nullptr, logits.logits, scratch);
  if (gradients()) {
    negative_log_likelihood_gradient(context, logits, scale, losses, gradient, head_.dtype);
  } else {
    negative_log_likelihood(context, logits, losses);
  }
  if (head_.dx)
    dx_.of(rows, chunk_)
        .run(context, gradient, operands.weight, nullptr, operands.dx + x_at, scratch);
  double total = 0;
  for (std::int64_t i = 0; i < rows; ++i) total += losses[i];
  return total;
}

void HeadPlan::add_dweight(const RunContext& context, const HeadOperands& operands,
                           std::int64_t first, std::int64_t rows, std::byte* workspace) const {
  const GemmPlan& plan = (first == 0 ? dweight_first_ : dweight_next_).of(rows, block_);
  plan.run(context, workspace + gradient_at_,
           operands.x + first * head_.channels * size_of(head_.dtype), nullptr,
           accumulator_ ? workspace + sum_at_ : operands.dweight, workspace + scratch_at_);
}

void HeadPlan::finish_dweight(const RunContext& context, const HeadOperands& operands,
                              std::byte* workspace) const {
  const Shape shape{head_.vocabulary, head_.channels};
  const TensorView from(workspace + sum_at_, sums_, shape);
  const TensorView to(operands.dweight, head_.dweight_dtype, shape);
  kernels::cast({.context = context, .attributes = {}, .inputs = {&from, 1}, .outputs = {&to, 1}});
}

}  // namespace ashlar
