// NCCL on GPUs: what ashlar/device_communicator.hpp offers.
#include <fmt/format.h>

#include "ashlar/device_communicator.hpp"
#include "comm/staged.hpp"
#include "cuda/current_device.hpp"
#include "cuda/native_stream.hpp"
#include "cuda/nccl_communicator.hpp"

namespace ashlar {
namespace {

/// Calls with buffers in host memory go through the device's.
std::unique_ptr<Communicator> connect(std::unique_ptr<cuda::NcclIds> ids, int rank, int size,
                                      Device device, std::shared_ptr<CachingResource> memory) {
  if (device.type != DeviceType::cuda)
    throw InvalidArgument(
        "NCCL needs a GPU: name a device as cuda:0, or take another communicator");
  const cuda::CurrentDevice current(device.index);
  if (!memory) memory = detail::device_cache(device);
  const cuda::NcclPlace place{
      .library = cuda::NcclLibrary::installed(),
      .device = device,
      .memory = memory,
      .native_stream = cuda::native_stream,
      .make_current = [index = device.index] { cuda::check(cudaSetDevice(index)); }};
  auto nccl = std::make_unique<cuda::NcclCommunicator>(place, std::move(ids), rank, size);
  return std::make_unique<detail::StagedCommunicator>(
      std::move(nccl), std::make_shared<detail::Staging>(device, detail::device_cache(device),
                                                         memory, Stream(device)));
}

}  // namespace

std::unique_ptr<Communicator> nccl_communicator(Communicator& bootstrap, Device device,
                                                std::shared_ptr<CachingResource> memory) {
  auto ids = std::make_unique<cuda::CommunicatorIds>(bootstrap.split(0, bootstrap.rank()));
  return connect(std::move(ids), bootstrap.rank(), bootstrap.size(), device, std::move(memory));
}

std::unique_ptr<Communicator> nccl_communicator(const FileBootstrap& bootstrap, Device device,
                                                std::shared_ptr<CachingResource> memory) {
  if (bootstrap.rank < 0 || bootstrap.rank >= bootstrap.size)
    throw InvalidArgument(
        fmt::format("there is no rank {} among {} ranks", bootstrap.rank, bootstrap.size));
  auto ids = std::make_unique<cuda::FileIds>(bootstrap.path, bootstrap.rank,
                                             std::chrono::milliseconds(60'000));
  return connect(std::move(ids), bootstrap.rank, bootstrap.size, device, std::move(memory));
}

}  // namespace ashlar
