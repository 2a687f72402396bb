// Every call of CUDA goes through check(): its failure is an exception that names the place.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <source_location>

namespace ashlar::cuda {

/// The runtime's pending error is cleared first, so that it does not surface in a later call.
/// @throws CudaError: "CUDA: cudaErrorMemoryAllocation (out of memory), at cuda/stream.cpp:31".
void check(cudaError_t status, std::source_location where = std::source_location::current());
void check(CUresult status, std::source_location where = std::source_location::current());

}  // namespace ashlar::cuda
