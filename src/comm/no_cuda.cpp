// GPUs where CUDA was not built in; cuda/shared_gpu_factory.cpp otherwise.
#include "ashlar/device_communicator.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

std::unique_ptr<Communicator> shared_gpu_communicator(Communicator&, Device,
                                                      std::shared_ptr<CachingResource>) {
  throw CudaError(detail::why_no_cuda());
}

}  // namespace ashlar
