// CUDA where it was not built in; cuda/stream.cpp otherwise.
#include "ashlar/error.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar::detail {

std::unique_ptr<StreamState> make_cuda_stream(int) { throw CudaError(why_no_cuda()); }
int cuda_device_count() noexcept { return 0; }
std::string why_no_cuda() { return "this program was built without CUDA"; }

}  // namespace ashlar::detail
