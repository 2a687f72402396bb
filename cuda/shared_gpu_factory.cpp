// Ranks that share a GPU: what ashlar/device_communicator.hpp offers.
#include "ashlar/device_communicator.hpp"
#include "comm/staged.hpp"
#include "cuda/shared_gpu.hpp"

namespace ashlar {

std::unique_ptr<Communicator> shared_gpu_communicator(Communicator& threads, Device device,
                                                      std::shared_ptr<CachingResource> memory) {
  const auto stream = std::make_shared<const Stream>(device);
  return std::make_unique<cuda::SharedGpuCommunicator>(
      threads,
      cuda::SharedGpuPlace{memory ? memory : detail::device_cache(device), *stream, stream});
}

}  // namespace ashlar
