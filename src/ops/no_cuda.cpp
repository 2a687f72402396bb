// CUDA where it was not built in; cuda/backend.cpp otherwise.
#include "ashlar/error.hpp"
#include "ops/cuda_backend.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

Backend cuda_backend(int) { throw CudaError(detail::why_no_cuda()); }

}  // namespace ashlar
