// Causal attention on packed queries, keys and values.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar {

/// Extents of one attention node.
struct AttentionSizes {
  std::int64_t batch = 0, positions = 0, channels = 0, heads = 0;
  std::int64_t head_size() const { return channels / heads; }
};

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
void causal_mask(const KernelArguments& arguments);

}  // namespace kernels
}  // namespace ashlar
