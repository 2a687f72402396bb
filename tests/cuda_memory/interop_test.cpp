// Streams of others and Thrust's temporary storage, over the fake CUDA.
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include "ashlar/caching_resource.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "ashlar/interop/thrust.hpp"
#include "support/fake_cuda/fake_cuda.hpp"
#include "support/temporary_folder.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
const Device kGpu{DeviceType::cuda, 0};

}  // namespace

TEST_CASE("cuda interop: a borrowed stream is the other's stream, which outlives it") {
  *fake_cuda() = {};
  fake_cuda()->devices = 2;
  const Device second{DeviceType::cuda, 1};
  cudaStream_t native = nullptr;
  cudaSetDevice(1);
  REQUIRE(cudaStreamCreateWithFlags(&native, 0) == cudaSuccess);
  cudaSetDevice(0);
  int ran = 0;
  {
    const BorrowedStream stream(native, second), standard(nullptr, second);
    CHECK(StreamRef(stream).device() == second);
    CHECK(cuda::native_stream(stream) == native);
    CHECK(cuda::native_stream(standard) == nullptr);
    StreamRef(stream).enqueue([&] { ++ran; });
    StreamRef(standard).wait(StreamRef(stream).record());
    StreamRef(standard).enqueue([&] { ran *= 10; });
    CHECK(ran == 0);
    StreamRef(standard).synchronize();  // of the second device, whichever is current
    CHECK(ran == 10);
    CHECK(fake_cuda()->current == 0);
  }
  CHECK(fake_cuda()->streams == 1);
  cudaStreamDestroy(native);
  CHECK(fake_cuda()->problems.empty());
  CHECK_THROWS_WITH_AS(BorrowedStream(nullptr, Device{}), "a stream of CUDA is borrowed for cpu",
                       InvalidArgument);
}

TEST_CASE("cuda interop: Thrust's temporary storage is freed in the order of its stream") {
  *fake_cuda() = {};
  cudaStream_t native = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&native, 0) == cudaSuccess);
  {
    const auto pages = device_pages(kGpu);
    const BorrowedStream stream(native, kGpu);
    const Stream other(kGpu);
    CachingResource memory(*pages);
    ThrustAllocator temporary(memory, stream);
    CHECK(temporary.stream() == native);
    char* storage = temporary.allocate(4 * kMiB);
    CHECK(memory.statistics().live[static_cast<std::size_t>(Category::workspace)] == 4 * kMiB);
    fill_async(storage, 1, 4 * kMiB, stream);
    ThrustAllocator(temporary).deallocate(storage, 4 * kMiB);
    CHECK(memory.statistics().live_bytes == 0);

    void* next = memory.allocate(4 * kMiB, Category::activation, other);
    CHECK(next == storage);
    fill_async(next, 2, 4 * kMiB, other);
    std::uint8_t seen = 0;
    copy_async(&seen, next, 1, other);
    StreamRef(other).synchronize();
    fake_cuda_drain();
    CHECK(seen == 2);
    copy_async(&seen, next, 1, other);
    StreamRef(other).synchronize();
    CHECK(seen == 2);  // the first fill came before
    memory.deallocate(next, 4 * kMiB, Category::activation, other);
    CHECK_THROWS_AS(temporary.allocate(4LL << 40), OutOfMemory);
  }
  cudaStreamDestroy(native);
  CHECK(fake_cuda()->problems.empty());
  CHECK(fake_cuda()->used[0] == 0);
}

}  // namespace ashlar
