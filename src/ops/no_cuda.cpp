// CUDA where it was not built in; cuda/backend.cpp, cublaslt_device.cpp and library_choices.cpp
// otherwise.
#include "ashlar/error.hpp"
#include "graph/program.hpp"
#include "ops/cuda_backend.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

Backend cuda_backend(int, int, bool) { throw CudaError(detail::why_no_cuda()); }
std::uint64_t agree_on_libraries(Communicator&, std::span<const Program>, StreamRef) {
  throw CudaError(detail::why_no_cuda());
}
std::string attention_engine(Device) { throw CudaError(detail::why_no_cuda()); }
int compute_capability(Device) { throw CudaError(detail::why_no_cuda()); }

}  // namespace ashlar
