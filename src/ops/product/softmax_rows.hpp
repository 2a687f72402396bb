// Row kernels of the language-model head: negative log-likelihood of one row of logits, and its
// gradient.
#pragma once

#include <cstdint>

#include "ashlar/op.hpp"

namespace ashlar {

/// Rows of logits, `columns` each without gaps, f32 or f64.
struct LogitRows {
  std::byte* logits = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const std::int32_t* targets = nullptr;  // one per row; below 0: ignored
};

/// losses[i] = log(sum_j exp(logits[i][j])) - logits[i][target], 0 for an ignored row.
void negative_log_likelihood(const RunContext& context, const LogitRows& rows, double* losses);

/// The same, and gradient[i][j] = scale (softmax(logits[i])[j] - [j == target]) in `dtype`, zeros
/// in an ignored row. Overwrites the logits; `gradient` may be the logits' memory when the type is
/// theirs.
void negative_log_likelihood_gradient(const RunContext& context, const LogitRows& rows,
                                      double scale, double* losses, std::byte* gradient,
                                      DType dtype);

}  // namespace ashlar
