// CUDA where it was not built in; cuda/stream.cpp otherwise.
#include "ashlar/error.hpp"
#include "ashlar/interop/cuda_stream.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

BorrowedStream::BorrowedStream(void*, Device) { throw CudaError(detail::why_no_cuda()); }
BorrowedStream::~BorrowedStream() = default;
BorrowedStream::BorrowedStream(BorrowedStream&&) noexcept = default;
BorrowedStream& BorrowedStream::operator=(BorrowedStream&&) noexcept = default;

void* cuda::native_stream(StreamRef) { throw CudaError(detail::why_no_cuda()); }

namespace detail {

std::unique_ptr<StreamState> make_cuda_stream(int) { throw CudaError(why_no_cuda()); }
void make_current(Device device) {
  if (device.type == DeviceType::cuda) throw CudaError(why_no_cuda());
}
int cuda_device_count() noexcept { return 0; }
std::string why_no_cuda() { return "this program was built without CUDA"; }

}  // namespace detail
}  // namespace ashlar
