// Every call of the CUDA runtime goes through check.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>

namespace ashlar::cuda {

/// @throws CudaError naming the call's line and CUDA's reason; the pending error is cleared first.
void check(cudaError_t status, std::source_location at = std::source_location::current());

}  // namespace ashlar::cuda
