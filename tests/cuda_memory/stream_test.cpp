// CUDA's streams over a fake CUDA.
#include <memory>

#include "ashlar/device.hpp"
#include "cuda_memory/fresh.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {
namespace {

const Device kGpu{DeviceType::cuda, 0};

}  // namespace

TEST_CASE("cuda stream, fake: the host's calls of a recording outlive it until they have run") {
  const Fresh fresh;
  const Stream stream(kGpu);
  const auto witness = std::make_shared<int>(0);
  detail::StreamState& state = detail::state_of(stream);
  state.begin_recording();
  StreamRef(stream).enqueue([witness] { ++*witness; });
  auto recording = state.end_recording();
  for (int launch = 0; launch < 3; ++launch) recording->launch();
  recording.reset();
  CHECK(witness.use_count() == 2);
  StreamRef(stream).synchronize();
  CHECK(*witness == 3);
  CHECK(witness.use_count() == 1);
}

TEST_CASE(
    "cuda stream, fake: a thread's device is set only where another is needed, and set back") {
  const Fresh fresh;
  fake_cuda()->devices = 2;
  const std::int64_t before = fake_cuda()->set;
  {
    const Stream stream(kGpu);
    StreamRef(stream).record().wait();
  }
  CHECK(fake_cuda()->set == before);
  const Stream other(Device{DeviceType::cuda, 1});
  CHECK(fake_cuda()->set == before + 2);
  CHECK(fake_cuda()->current == 0);
}

}  // namespace ashlar
