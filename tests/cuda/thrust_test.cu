// Thrust and CUB with the caching allocator behind them, on a GPU.
#include <doctest/doctest.h>
#include <thrust/execution_policy.h>
#include <thrust/reduce.h>
#include <thrust/sort.h>

#include <algorithm>
#include <cstdint>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_reduce.cuh>
#include <numeric>
#include <random>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/interop/thrust.hpp"
#include "cuda/check.h"

namespace ashlar {
namespace {

constexpr int kCount = 100'003;
constexpr std::int64_t kBytes = kCount * std::int64_t{sizeof(std::int32_t)};
const Device kGpu{DeviceType::cuda, 0};

std::vector<std::int32_t> random_values() {
  std::mt19937 random(3);
  std::vector<std::int32_t> values(kCount);
  for (std::int32_t& value : values) value = static_cast<std::int32_t>(random() % 20'000) - 10'000;
  return values;
}

std::int32_t* as_int(const Buffer& buffer) {
  return reinterpret_cast<std::int32_t*>(buffer.data());
}

std::vector<std::int32_t> read(const std::int32_t* from, std::size_t count, StreamRef stream) {
  std::vector<std::int32_t> values(count);
  copy_async(values.data(), from, static_cast<std::int64_t>(4 * count), stream);
  stream.synchronize();
  return values;
}

}  // namespace

TEST_CASE("cuda thrust: sorts and reduces with temporary storage of ours, on the given stream") {
  const std::vector<std::int32_t> values = random_values();
  std::vector<std::int32_t> sorted = values;
  std::ranges::sort(sorted);
  const auto pages = device_pages(kGpu);
  const Stream stream(kGpu);
  CachingResource memory(*pages);
  {
    const Buffer keys(memory, kBytes, Category::activation, stream);
    copy_async(keys.data(), values.data(), kBytes, stream);
    const std::int64_t before = memory.statistics().allocations;
    ThrustAllocator temporary(memory, stream);
    const auto policy = thrust::cuda::par(temporary).on(temporary.stream());
    thrust::sort(policy, as_int(keys), as_int(keys) + kCount);
    CHECK(thrust::reduce(policy, as_int(keys), as_int(keys) + kCount) ==
          std::accumulate(values.begin(), values.end(), 0));
    CHECK(memory.statistics().allocations > before);
    CHECK(memory.statistics().live_bytes == kBytes);
    CHECK(read(as_int(keys), kCount, stream) == sorted);
  }
  StreamRef(stream).synchronize();
  memory.retire(stream);
}

TEST_CASE("cuda thrust: what par_nosync frees while it is still in use goes to nobody else") {
  std::vector<std::int32_t> values = random_values();
  const auto pages = device_pages(kGpu);
  cudaStream_t native = nullptr;
  cuda::check(cudaStreamCreateWithFlags(&native, cudaStreamNonBlocking));
  const Stream other(kGpu);
  {
    const BorrowedStream stream(native, kGpu);
    CachingResource memory(*pages);
    {
      const Buffer keys(memory, kBytes, Category::activation, stream);
      copy_async(keys.data(), values.data(), kBytes, stream);
      ThrustAllocator temporary(memory, stream);
      thrust::sort(thrust::cuda::par_nosync(temporary).on(native), as_int(keys),
                   as_int(keys) + kCount);
      const Buffer next(memory, kBytes, Category::activation, other);
      fill_async(next.data(), 0xff, kBytes, other);
      std::ranges::sort(values);
      CHECK(read(as_int(keys), kCount, stream) == values);
    }
    for (const StreamRef used : {StreamRef(stream), StreamRef(other)}) {
      used.synchronize();
      memory.retire(used);
    }
  }
  cuda::check(cudaStreamDestroy(native));
}

TEST_CASE("cuda cub: a Buffer of the caching allocator is its temporary storage") {
  std::vector<std::int32_t> values = random_values();
  const auto pages = device_pages(kGpu);
  const Stream stream(kGpu);
  CachingResource memory(*pages);
  {
    const Buffer keys(memory, kBytes, Category::activation, stream);
    const Buffer sorted(memory, kBytes, Category::activation, stream);
    const Buffer sum(memory, 4, Category::activation, stream);
    copy_async(keys.data(), values.data(), kBytes, stream);
    const auto native = static_cast<cudaStream_t>(cuda::native_stream(stream));
    const auto with_storage = [&](const auto& call) {
      std::size_t bytes = 0;
      cuda::check(call(nullptr, bytes));
      const Buffer storage(memory, static_cast<std::int64_t>(bytes), Category::workspace, stream);
      cuda::check(call(storage.data(), bytes));
    };
    with_storage([&](void* storage, std::size_t& bytes) {
      return cub::DeviceRadixSort::SortKeys(storage, bytes, as_int(keys), as_int(sorted), kCount, 0,
                                            32, native);
    });
    with_storage([&](void* storage, std::size_t& bytes) {
      return cub::DeviceReduce::Sum(storage, bytes, as_int(sorted), as_int(sum), kCount, native);
    });
    CHECK(read(as_int(sum), 1, stream)[0] == std::accumulate(values.begin(), values.end(), 0));
    std::ranges::sort(values);
    CHECK(read(as_int(sorted), kCount, stream) == values);
  }
  StreamRef(stream).synchronize();
  memory.retire(stream);
}

}  // namespace ashlar
