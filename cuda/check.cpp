#include "cuda/check.h"

#include <fmt/core.h>

#include "ashlar/error.hpp"

namespace ashlar::cuda {

void check(cudaError_t status, std::source_location at) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw CudaError(fmt::format("{}:{}: CUDA: {} ({})", at.file_name(), at.line(),
                              cudaGetErrorString(status), cudaGetErrorName(status)));
}

}  // namespace ashlar::cuda
