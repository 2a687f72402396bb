// CUDA where it was not built in; cuda/backend.cpp and cuda/cublaslt_device.cpp otherwise.
#include "ashlar/error.hpp"
#include "ops/cuda_backend.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

Backend cuda_backend(int, int, bool) { throw CudaError(detail::why_no_cuda()); }
int compute_capability(Device) { throw CudaError(detail::why_no_cuda()); }

}  // namespace ashlar
