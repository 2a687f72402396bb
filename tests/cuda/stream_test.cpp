// Streams and events of CUDA: the cases of every device run on it too, and what only it has.
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "cuda/check.h"
#include "cuda/kernels.hpp"
#include "cuda/native_stream.hpp"
#include "runtime/stream_cases.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar {

Device test::device_of_streams() { return {DeviceType::cuda, 0}; }

namespace {

const Device kGpu{DeviceType::cuda, 0};

}  // namespace

TEST_CASE("cuda stream: it is a stream of the driver that does not wait for the default one") {
  const Stream stream(kGpu);
  const auto native = static_cast<cudaStream_t>(cuda::native_stream(stream));
  unsigned flags = 0;
  cuda::check(cudaStreamGetFlags(native, &flags));
  CHECK(flags == cudaStreamNonBlocking);
  CHECK(cuda::native_stream({}) == cudaStreamLegacy);
  CHECK_THROWS_AS(cuda::native_stream(Stream()), InvalidArgument);
}

TEST_CASE("cuda stream: it waits for an event of the CPU, and the CPU for one of it") {
  const Stream host, gpu(kGpu);
  std::atomic<bool> go{false};
  int value = 0;
  StreamRef(host).enqueue([&] {
    while (!go) std::this_thread::yield();
    value = 1;
  });
  const Event written = StreamRef(host).record();
  std::thread releases([&] { go = true; });
  StreamRef(gpu).wait(written);
  StreamRef(gpu).enqueue([&] { value *= 10; });
  StreamRef(host).wait(StreamRef(gpu).record());
  StreamRef(host).enqueue([&] { value += 1; });
  StreamRef(host).synchronize();
  releases.join();
  CHECK(value == 11);
}

TEST_CASE("cuda stream: recorded sets, copies and kernels reach over all pages of an allocation") {
  constexpr std::int64_t kBytes = 64 << 20, kMid = kBytes / 2;  // of 2 MiB pages
  const auto pages = device_pages(kGpu);
  CachingResource memory(*pages);
  const Stream stream(kGpu);
  const auto take = [&] { return Buffer(memory, kBytes, Category::activation, stream); };
  {
    const Buffer set = take(), copied = take(), read = take();
    detail::StreamState& state = detail::state_of(stream);
    state.begin_recording();
    fill_async(set.data(), 0x5a, kBytes, stream);
    cuda::fill_zeros(stream, set.data() + kMid, 1);
    copy_async(copied.data(), set.data(), kBytes, stream);
    const TensorView from = copied.view(DType::i32, {kBytes / 4});
    const TensorView to = read.view(DType::i32, {kBytes / 4});
    RunContext context;
    context.stream = stream;
    cuda::copy({.context = context, .attributes = {}, .inputs = {&from, 1}, .outputs = {&to, 1}});
    const auto recording = state.end_recording();
    std::vector<std::byte> host(kBytes);
    for (int replay = 0; replay < 2; ++replay) {
      for (const Buffer* buffer : {&set, &copied, &read})
        fill_async(buffer->data(), 0xff, kBytes, stream);
      recording->launch();
      copy_async(host.data(), read.data(), kBytes, stream);
      StreamRef(stream).synchronize();
      CHECK(host[kMid] == std::byte{0});
      CHECK(std::ranges::count(host, std::byte{0x5a}) == kBytes - 1);
    }
  }
  StreamRef(stream).synchronize();
  memory.retire(stream);
}

TEST_CASE("cuda stream: an event outlives its stream") {
  Event event;
  {
    const Stream stream(kGpu);
    StreamRef(stream).enqueue([] {});
    event = StreamRef(stream).record();
  }
  event.wait();
  CHECK(event.done());
}

TEST_CASE("cuda stream: a device that is not there is refused with its reason") {
  const int count = device_count(DeviceType::cuda);
  CHECK_THROWS_AS(Stream(Device{DeviceType::cuda, count}), CudaError);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(parse_device("cuda") == kGpu);
}

}  // namespace ashlar
