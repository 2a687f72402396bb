// What kernels a step on a GPU runs.
#pragma once

#include "ashlar/device.hpp"
#include "ashlar/op.hpp"

namespace ashlar {

/// Attention by cuDNN (on sm_80, sm_90 and sm_100), products by cuBLASLt and kernels of our own;
/// what has none is refused when a step is compiled. Needs no device. @param threads of the host,
/// per rank  @param sm the GPU's compute capability: 90 for 9.0
/// @param deterministic gradients of attention have the same bits in every run; off, cuDNN's
/// quickest engine may add them in any order
/// @throws CudaError where CUDA was not built in.
Backend cuda_backend(int threads, int sm, bool deterministic = true);

/// 90 for compute capability 9.0. @throws CudaError where the device does not work.
int compute_capability(Device device);

}  // namespace ashlar
