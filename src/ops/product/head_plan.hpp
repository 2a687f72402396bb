// The language-model head in blocks of rows: logits, loss and gradients without whole logits.
#pragma once

#include "ashlar/op.hpp"
#include "ops/product/gemm.hpp"

namespace ashlar {

/// x (rows, C) x weight (V, C)^T, and which gradients are wanted.
struct Head {
  std::int64_t rows = 0;
  std::int64_t channels = 0;
  std::int64_t vocabulary = 0;
  DType dtype = DType::f32;  // of x, weight and dx
  bool dx = false;
  bool dweight = false;
  DType dweight_dtype = DType::f32;  // dtype, or f32 for bf16
};

struct HeadOperands {
  const std::byte* x = nullptr;
  const std::byte* weight = nullptr;
  const std::int32_t* targets = nullptr;
  double dloss = 0;
  std::byte* dx = nullptr;
  std::byte* dweight = nullptr;
};

/// Logits of at most 128 rows exist at a time, in f32 (f64 for f64); their gradient, in the type of
/// x, takes their place. For bf16 the gradients of up to 1024 rows stand in a buffer of their own,
/// so that dweight is usually one product; more rows are summed in f32 and rounded once.
class HeadPlan {
 public:
  HeadPlan(const Head& head, const Backend& backend);

  std::int64_t workspace_bytes() const { return end_; }
  /// @return the mean over counted tokens, 0 when none is counted
  /// @throws InvalidArgument for a target that is not in the vocabulary.
  double run(const RunContext& context, const HeadOperands& operands, std::byte* workspace) const;

 private:
  /// A product over blocks of a varying number of rows: whole blocks, and the last one.
  struct Blocks {
    GemmPlan whole, last;
    const GemmPlan& of(std::int64_t rows, std::int64_t block) const {
      return rows == block ? whole : last;
    }
  };

  bool gradients() const { return head_.dx || head_.dweight; }
  Blocks by_rows(Gemm gemm, std::int64_t block, std::int64_t Gemm::*extent,
                 const Backend& backend) const;
  std::int64_t reserve(std::int64_t bytes);
  double run_chunk(const RunContext& context, const HeadOperands& operands, std::int64_t first,
                   std::int64_t rows, double scale, std::byte* gradient,
                   std::byte* workspace) const;
  void add_dweight(const RunContext& context, const HeadOperands& operands, std::int64_t first,
                   std::int64_t rows, std::byte* workspace) const;
  void finish_dweight(const RunContext& context, const HeadOperands& operands,
                      std::byte* workspace) const;

  Head head_;
  DType sums_;                // of logits and sums
  std::int64_t chunk_ = 0;    // rows of logits
  std::int64_t block_ = 0;    // rows of gradients, a multiple of chunk_ or all rows
  bool accumulator_ = false;  // dweight is summed in the workspace
  Blocks logits_, dx_, dweight_first_, dweight_next_;
  std::int64_t logits_at_ = 0, losses_at_ = 0, gradient_at_ = 0, sum_at_ = 0, scratch_at_ = 0;
  std::int64_t end_ = 0;
};

}  // namespace ashlar
