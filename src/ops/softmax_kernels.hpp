// Kernels of softmax and cross-entropy, rows of the last axis.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar::kernels {

void softmax(const KernelArguments& arguments);
void softmax_backward(const KernelArguments& arguments);  // y, dy -> dx
void cross_entropy(const KernelArguments& arguments);     // logits, targets -> loss, lse
void cross_entropy_backward(
    const KernelArguments& arguments);  // logits, targets, lse, g -> dlogits
void target_weights(const KernelArguments& arguments);

}  // namespace ashlar::kernels
