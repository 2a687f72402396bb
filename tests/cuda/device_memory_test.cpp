// Memory of a GPU: its pages, the caching allocator over them, pinned memory, copies, peers.
#include "ashlar/device_memory.hpp"

#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "ashlar/error.hpp"
#include "cuda/check.h"
#include "cuda/native_stream.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr auto kCategory = Category::activation;
const Device kGpu{DeviceType::cuda, 0};

void fill(void* to, int byte, std::int64_t bytes, StreamRef stream) {
  cuda::check(cudaMemsetAsync(to, byte, static_cast<std::size_t>(bytes),
                              static_cast<cudaStream_t>(cuda::native_stream(stream))));
}

/// True when all bytes are `byte`; waits for the stream.
bool holds(const void* from, int byte, std::int64_t bytes, StreamRef stream) {
  std::vector<std::uint8_t> host(static_cast<std::size_t>(bytes), static_cast<std::uint8_t>(~byte));
  copy_async(host.data(), from, bytes, stream);
  stream.synchronize();
  return std::ranges::all_of(host, [=](std::uint8_t b) { return b == byte; });
}

struct Block {
  void* memory;
  std::int64_t bytes;
  std::size_t stream;
  int byte;
};

/// Random allocations on two streams, each filled there; none may lose its bytes to another.
void churn(CachingResource& resource, std::array<StreamRef, 2> streams) {
  std::mt19937 random(7);
  std::vector<Block> live;
  const auto release = [&](std::size_t i) {
    const Block block = live[i];
    live[i] = live.back();
    live.pop_back();
    REQUIRE(holds(block.memory, block.byte, block.bytes, streams[block.stream]));
    fill(block.memory, 0xee, block.bytes, streams[block.stream]);  // still runs when it is free
    resource.deallocate(block.memory, block.bytes, kCategory, streams[block.stream]);
  };
  for (int i = 0; i < 600; ++i) {
    if (live.size() > 20 || (!live.empty() && random() % 3 == 0)) {
      release(random() % live.size());
      continue;
    }
    const std::size_t stream = random() % 2;
    const std::int64_t bytes = 1 + static_cast<std::int64_t>(random() >> (random() % 24 + 8));
    void* memory = resource.allocate(bytes, kCategory, streams[stream]);
    fill(memory, i % 251, bytes, streams[stream]);
    live.push_back({memory, bytes, stream, i % 251});
  }
  while (!live.empty()) release(live.size() - 1);
}

}  // namespace

TEST_CASE("cuda pages: they are put under addresses, moved away and put there again") {
  const auto pages = device_pages(kGpu);
  const std::int64_t page = pages->page_bytes();
  CHECK(page == 2 * kMiB);
  std::byte* range = pages->reserve(8 * page);
  REQUIRE(range != nullptr);
  const Stream stream(kGpu);
  for (const std::int64_t first : {0, 5, 0}) {
    REQUIRE(pages->map(range + first * page, 3 * page));
    fill(range + first * page, 0x5a, 3 * page, stream);
    CHECK(holds(range + first * page, 0x5a, 3 * page, stream));
    pages->unmap(range + first * page, 3 * page);
  }
  pages->release(range, 8 * page);
}

TEST_CASE("cuda caching: no block loses its bytes to another, over streams, reuse and trimming") {
  for (const bool expandable : {true, false}) {
    CAPTURE(expandable);
    const auto pages = device_pages(kGpu, expandable);
    const Stream first(kGpu), second(kGpu);
    CachingResource resource(*pages, {.expandable = expandable});
    churn(resource, {first, second});
    CHECK(resource.statistics().live_bytes == 0);
    CHECK(resource.statistics().peak_reserved_bytes >= resource.statistics().peak_live_bytes);
    CHECK(resource.trim() > 0);
    CHECK(resource.statistics().reserved_bytes == 0);
    churn(resource, {second, first});
    for (const StreamRef stream : {StreamRef(first), StreamRef(second)}) {
      stream.synchronize();
      resource.retire(stream);
    }
  }
}

TEST_CASE("cuda caching: freed memory is used again without calls of the driver") {
  const auto pages = device_pages(kGpu);
  const Stream stream(kGpu);
  CachingResource resource(*pages);
  void* first = resource.allocate(10 * kMiB, kCategory, stream);
  resource.deallocate(first, 10 * kMiB, kCategory, stream);
  const std::int64_t calls = resource.statistics().source_calls;
  for (int i = 0; i < 10; ++i) {
    void* again = resource.allocate(10 * kMiB, kCategory, stream);
    CHECK(again == first);
    resource.deallocate(again, 10 * kMiB, kCategory, stream);
  }
  CHECK(resource.statistics().source_calls == calls);
  StreamRef(stream).synchronize();
  resource.retire(stream);
}

TEST_CASE(
    "cuda caching: a segment that the device cannot give is out of memory, and work goes on") {
  const auto pages = device_pages(kGpu, false);
  const Stream stream(kGpu);
  CachingResource resource(*pages, {.expandable = false});
  CHECK_THROWS_AS(resource.allocate(std::int64_t{1} << 45, kCategory, stream), OutOfMemory);
  CHECK(cudaGetLastError() == cudaSuccess);
  void* still = resource.allocate(kMiB, kCategory, stream);
  fill(still, 1, kMiB, stream);
  CHECK(holds(still, 1, kMiB, stream));
  resource.deallocate(still, kMiB, kCategory, stream);
  StreamRef(stream).synchronize();
  resource.retire(stream);
}

TEST_CASE("cuda pinned: bytes go from pinned memory to the device and back, in stream order") {
  constexpr std::int64_t kBytes = 3 * kMiB + 5;
  const Stream stream(kGpu);
  auto* from = static_cast<std::uint8_t*>(pinned_memory().allocate(kBytes, kCategory));
  auto* to = static_cast<std::uint8_t*>(pinned_memory().allocate(kBytes, kCategory));
  CHECK(reinterpret_cast<std::uintptr_t>(from) % kAlignment == 0);
  cudaPointerAttributes attributes;
  cuda::check(cudaPointerGetAttributes(&attributes, from));
  CHECK(attributes.type == cudaMemoryTypeHost);
  const auto pages = device_pages(kGpu);
  {
    CachingResource resource(*pages);
    void* one = resource.allocate(kBytes, kCategory, stream);
    void* two = resource.allocate(kBytes, kCategory, stream);
    for (std::int64_t i = 0; i < kBytes; ++i) from[i] = static_cast<std::uint8_t>(i * 31);
    copy_async(one, from, kBytes, stream);
    copy_async(two, one, kBytes, stream);
    fill(one, 0, kBytes, stream);
    copy_async(to, two, kBytes, stream);
    StreamRef(stream).synchronize();
    CHECK(std::equal(from, from + kBytes, to));
    CHECK(holds(one, 0, kBytes, stream));
    resource.deallocate(one, kBytes, kCategory, stream);
    resource.deallocate(two, kBytes, kCategory, stream);
    StreamRef(stream).synchronize();
    resource.retire(stream);
  }
  pinned_memory().deallocate(from, kBytes, kCategory);
  pinned_memory().deallocate(to, kBytes, kCategory, stream);
}

TEST_CASE("cuda peers: a device is no peer of itself, and one that is not there is refused") {
  CHECK_FALSE(enable_peer_access(kGpu, kGpu));
  const Device absent{DeviceType::cuda, device_count(DeviceType::cuda)};
  CHECK_THROWS_AS(enable_peer_access(kGpu, absent), CudaError);
  CHECK_THROWS_AS(device_bytes(absent), CudaError);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("cuda pages: more than the device has is refused, nothing stays mapped") {
  const auto pages = device_pages(kGpu);
  const DeviceBytes before = device_bytes(kGpu);
  CHECK(before.free <= before.total);
  const std::int64_t bytes = align_up(before.total + pages->page_bytes(), pages->page_bytes());
  std::byte* range = pages->reserve(bytes);
  REQUIRE(range != nullptr);
  CHECK_FALSE(pages->map(range, bytes));
  pages->release(range, bytes);
  CHECK(device_bytes(kGpu).free + 64 * kMiB >= before.free);
}

}  // namespace ashlar
