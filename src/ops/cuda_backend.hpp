// What kernels a step on a GPU runs.
#pragma once

#include "ashlar/op.hpp"

namespace ashlar {

/// Products by cuBLASLt and kernels of our own; what has neither is refused when a step is
/// compiled. Needs no device. @param threads of the host, per rank
/// @throws CudaError where CUDA was not built in.
Backend cuda_backend(int threads);

}  // namespace ashlar
