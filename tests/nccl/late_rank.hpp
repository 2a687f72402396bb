// A rank of NcclCommunicator whose GPU is a late device, which can record.
#pragma once

#include <exception>
#include <memory>
#include <string>

#include "emulated/train_run.hpp"
#include "nccl/ranks.hpp"

namespace ashlar::test {

struct LateRank {
  explicit LateRank(Communicator& threads, Ahead ahead = Ahead::nothing, unsigned seed = 1)
      : device(ahead, seed + static_cast<unsigned>(threads.rank())) {
    cuda::NcclPlace place = fake_place();
    place.make_stream = [this](Device) { return device.make_stream(); };
    world = connect(threads, place);
    side = emulated(kernels);
    side.target.replays = world->records();
  }

  LateDevice device;
  StreamRef kernels = device.stream();  // the device's stream 0; 1 is NCCL's
  std::unique_ptr<cuda::NcclCommunicator> world;
  DeviceSide side;
};

template <typename Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

}  // namespace ashlar::test
