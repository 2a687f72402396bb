// NCCL where it was not built in; cuda/nccl_factory.cpp otherwise.
#include "ashlar/device_communicator.hpp"

namespace ashlar {
namespace {

[[noreturn]] void refuse() {
  throw CudaError("this program was built without NCCL; configure it with -DASHLAR_NCCL=ON");
}

}  // namespace

std::unique_ptr<Communicator> nccl_communicator(Communicator&, Device,
                                                std::shared_ptr<CachingResource>) {
  refuse();
}
std::unique_ptr<Communicator> nccl_communicator(const FileBootstrap&, Device,
                                                std::shared_ptr<CachingResource>) {
  refuse();
}

}  // namespace ashlar
