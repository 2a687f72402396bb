#include "sharding/step_device.hpp"

#include "ashlar/device_communicator.hpp"
#include "ashlar/device_memory.hpp"
#include "comm/staged.hpp"
#include "ops/cuda_backend.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

StepDevice::StepDevice(const TrainConfig& config)
    : stream_(config.device),
      side_{cuda_backend(config.threads, compute_capability(config.device), config.deterministic),
            {stream_, &pinned_memory()},
            agree_on_libraries,
            detail::device_cache(config.device)} {}

void StepDevice::connect(Communicator& ranks, Device device) {
  const auto* staged = dynamic_cast<const detail::StagedCommunicator*>(&ranks);
  if (staged == nullptr) own_ranks_ = device_communicator(ranks, device, side_.memory);
  ranks_ = own_ranks_ ? own_ranks_.get() : &ranks;
  staged = dynamic_cast<const detail::StagedCommunicator*>(ranks_);
  side_.sums_on_host = staged != nullptr && staged->sums_on_host();
  side_.target.replays = ranks_->records();
}

std::unique_ptr<StepDevice> StepDevice::open(Communicator& ranks, const TrainConfig& config) {
  if (config.device.type == DeviceType::cpu) return nullptr;
  std::unique_ptr<StepDevice> device;
  collectively(ranks, [&] {
    detail::make_current(config.device);
    device.reset(new StepDevice(config));
  });
  device->connect(ranks, config.device);
  return device;
}

}  // namespace ashlar
