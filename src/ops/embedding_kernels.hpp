// Kernels of table look-up and its gradients.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void embedding(const KernelArguments& arguments);  // tokens, token_table, position_table -> rows
/// tokens, dy -> gradient of the token table, written whole: tokens are sorted with their positions
/// in the workspace, then each table row sums its rows of dy in token order.
void embedding_tokens(const KernelArguments& arguments);
std::int64_t embedding_tokens_workspace(std::int64_t tokens);
void embedding_positions(const KernelArguments& arguments);  // dy -> gradient of position_table

}  // namespace ashlar::kernels
