// Every call of the CUDA runtime goes through check.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <source_location>

#include "ashlar/error.hpp"

namespace ashlar::cuda {

/// @throws CudaError naming the call's line, and clears the pending error.
inline void check(cudaError_t status, std::source_location at = std::source_location::current()) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw CudaError(fmt::format("{}:{}: CUDA: {} ({})", at.file_name(), at.line(),
                              cudaGetErrorString(status), cudaGetErrorName(status)));
}

}  // namespace ashlar::cuda
