// Causal attention on queries, keys and values that lie packed in one tensor or apart, in samples
// of equal length or in sequences of given boundaries; keys and values may have fewer heads than
// queries.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar {

/// Extents of one attention node: `sequences` stretches of up to `positions` of the `rows`.
struct AttentionSizes {
  std::int64_t rows = 0, sequences = 0, positions = 0;
  std::int64_t heads = 0, kv_heads = 0, head_size = 0;
  std::int64_t group() const { return heads / kv_heads; }  // heads that share keys and values
  std::int64_t channels() const { return heads * head_size; }
};

/// Of qkv (B, T, 3 heads D).
inline AttentionSizes packed_sizes(const Shape& qkv, const Attributes& attributes) {
  const std::int64_t heads = attributes.integer("heads");
  return {qkv[0] * qkv[1], qkv[0], qkv[1], heads, heads, qkv[2] / 3 / heads};
}

/// Of q (B, T, heads D); with sequences, any of them may be as long as all rows.
inline AttentionSizes grouped_sizes(const Shape& q, const Attributes& attributes) {
  const std::int64_t heads = attributes.integer("heads"), kv_heads = attributes.integer("kv_heads");
  const std::int64_t sequences = attributes.integer("sequences"), rows = q[0] * q[1];
  const bool samples = sequences == 0;
  return {rows, samples ? q[0] : sequences, samples ? q[1] : rows, heads, kv_heads, q[2] / heads};
}

/// What prepare() keeps: the number of threads that the workspace has room for.
struct AttentionPlan {
  int threads = 1;
};

namespace kernels {

/// Scratch bytes of one thread.
std::int64_t attention_workspace(const AttentionSizes& sizes, DType dtype);
std::int64_t attention_backward_workspace(const AttentionSizes& sizes, DType dtype);

void attention(const KernelArguments& arguments);           // qkv -> out, lse
void attention_backward(const KernelArguments& arguments);  // qkv, out, lse, dout -> dqkv
/// q, k, v, boundaries (may be absent) -> out, lse
void grouped_attention(const KernelArguments& arguments);
/// q, k, v, boundaries (may be absent), out, lse, dout -> dq, dk, dv
void grouped_attention_backward(const KernelArguments& arguments);
void causal_mask(const KernelArguments& arguments);  // boundaries (may be absent) -> (T, T)

}  // namespace kernels
}  // namespace ashlar
