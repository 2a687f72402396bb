// The caching allocator on CUDA's memory and streams, over a fake CUDA that checks every call.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <list>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ashlar/caching_resource.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "cuda/driver.hpp"
#include "cuda_memory/fresh.hpp"
#include "support/temporary_folder.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr auto kCategory = Category::activation;
const Device kGpu{DeviceType::cuda, 0};

/// A program on three streams: allocates, fills, sometimes hands over to another stream, looks at
/// its bytes, frees. Work runs late.
class Program {
 public:
  Program(CachingResource& resource, unsigned seed) : resource_(resource), random_(seed) {
    for (int i = 0; i < 3; ++i) streams_.emplace_back(kGpu);
  }
  ~Program() {
    fake_cuda_drain();
    for (const Block& block : live_) free(block, block.stream);
    for (const Stream& stream : streams_) resource_.retire(stream);
  }

  void run(int operations) {
    for (int i = 0; i < operations; ++i) {
      try {
        if (live_.size() < 3 || random_() % 100 < 52) {
          allocate();
        } else {
          use_and_free(random_() % live_.size());
        }
        if (random_() % 200 == 0) resource_.trim();
      } catch (const OutOfMemory&) {
        ++refused;
      } catch (const CudaError&) {
        ++refused;
      }
      for (unsigned steps = random_() % 4; steps > 0; --steps)
        fake_cuda_step(static_cast<unsigned>(random_()));
    }
  }
  /// How often memory did not hold what was written to it.
  int wrong() {
    fake_cuda_drain();
    int count = 0;
    for (const Seen& seen : seen_) count += seen.first != seen.value || seen.last != seen.value;
    return count;
  }
  int refused = 0;

 private:
  struct Block {
    void* memory;
    std::int64_t bytes;
    std::size_t stream;
    std::uint8_t value;
  };
  struct Seen {
    std::uint8_t value;
    std::uint8_t first, last;  // as the device gave them
  };

  std::int64_t size() {
    const std::int64_t most =
        std::vector<std::int64_t>{700, 100'000, kMiB, 5 * kMiB}[random_() % 4];
    return 1 + static_cast<std::int64_t>(random_()) % most;
  }
  void allocate() {
    Block block{nullptr, size(), random_() % 3, static_cast<std::uint8_t>(random_())};
    block.memory = resource_.allocate(block.bytes, kCategory, streams_[block.stream]);
    live_.push_back(block);
    fill_async(block.memory, block.value, block.bytes, streams_[block.stream]);
  }
  void free(const Block& block, std::size_t stream) {
    resource_.deallocate(block.memory, block.bytes, kCategory, streams_[stream]);
  }
  void use_and_free(std::size_t i) {
    const Block block = live_[i];
    std::size_t last = block.stream;
    if (random_() % 3 == 0) {
      last = random_() % 3;
      StreamRef(streams_[last]).wait(StreamRef(streams_[block.stream]).record());
    }
    Seen& seen = seen_.emplace_back(Seen{block.value, block.value, block.value});
    const auto* bytes = static_cast<const std::uint8_t*>(block.memory);
    copy_async(&seen.first, bytes, 1, streams_[last]);
    copy_async(&seen.last, bytes + block.bytes - 1, 1, streams_[last]);
    live_[i] = live_.back();
    live_.pop_back();
    free(block, last);
  }

  CachingResource& resource_;
  std::mt19937 random_;
  std::vector<Stream> streams_;
  std::vector<Block> live_;
  std::list<Seen> seen_;
};

CachingOptions options_of(unsigned seed) {
  CachingOptions options;
  options.expandable = seed % 2 == 0;
  options.order_streams = seed % 4 < 2;
  options.segment_bytes = 6 * kMiB;
  options.range_bytes = seed % 8 < 4 ? 64 * kMiB : std::int64_t{1} << 36;
  options.slack = seed % 3 == 0 ? 0 : 0.1;
  return options;
}

struct Outcome {
  int wrong = 0, refused = 0;
};
Outcome run_program(unsigned seed, int operations) {
  const CachingOptions options = options_of(seed);
  const auto pages = device_pages(kGpu, options.expandable);
  CachingResource resource(*pages, options);
  Outcome outcome;
  {
    Program program(resource, seed);
    program.run(operations);
    outcome = {program.wrong(), program.refused};
    CHECK(fake_cuda()->used[0] == resource.statistics().reserved_bytes);
  }
  CHECK(resource.statistics().live_bytes == 0);
  resource.trim();
  CHECK(fake_cuda()->used[0] == 0);
  return outcome;
}

}  // namespace

TEST_CASE("cuda caching, fake: random programs lose no byte, misuse nothing and give all back") {
  for (unsigned seed = 0; seed < 16; ++seed) {
    CAPTURE(seed);
    const Fresh fresh;
    if (seed % 3 == 0) fake_cuda()->capacity = 24 * kMiB;
    const Outcome outcome = run_program(seed, 600);
    CHECK(outcome.wrong == 0);
    CHECK((outcome.refused > 0) == (seed % 3 == 0));
  }
}

TEST_CASE("cuda caching, fake: the n-th call fails, and nothing is lost or leaks") {
  for (const unsigned seed : {0U, 1U, 2U, 3U}) {
    CAPTURE(seed);
    std::int64_t calls = 0;
    {
      const Fresh fresh;
      run_program(seed, 60);
      calls = fake_cuda()->calls;
    }
    REQUIRE(calls > 50);
    for (std::int64_t n = 0; n < calls; n += 1 + n / 20) {
      CAPTURE(n);
      const Fresh fresh;
      fake_cuda()->failing = n;
      try {
        CHECK(run_program(seed, 60).wrong == 0);
      } catch (const CudaError&) {  // of a stream or a range that there is not even at first
      }
    }
  }
}

TEST_CASE("cuda caching, fake: a wait that is lost between streams is seen") {
  int wrong = 0;
  for (const unsigned seed : {0U, 1U, 4U, 5U}) {
    const Fresh fresh;
    fake_cuda()->lose_waits = true;
    wrong += run_program(seed, 600).wrong;
  }
  CHECK(wrong > 0);
}

TEST_CASE("cuda caching, fake: out of memory is one line, and what is freed serves again") {
  for (const bool expandable : {true, false}) {
    CAPTURE(expandable);
    const Fresh fresh;
    fake_cuda()->capacity = 64 * kMiB;
    const auto pages = device_pages(kGpu, expandable);
    const Stream stream(kGpu);
    CachingOptions options{.name = "cuda:0", .expandable = expandable};
    void* spare = nullptr;
    CachingResource* self = nullptr;
    int asked = 0;
    options.retry = [&](std::int64_t) {
      ++asked;
      if (spare == nullptr) return false;
      self->deallocate(std::exchange(spare, nullptr), 40 * kMiB, kCategory, stream);
      return true;
    };
    CachingResource resource(*pages, options);
    self = &resource;
    spare = resource.allocate(40 * kMiB, kCategory, stream);
    fill_async(spare, 1, 40 * kMiB, stream);
    void* held = resource.allocate(50 * kMiB, Category::gradient, stream);
    CHECK(asked == 1);
    const std::string said =
        message_of<OutOfMemory>([&] { resource.allocate(20 * kMiB, kCategory, stream); });
    CHECK(asked == 2);
    CHECK(contains(said, "out of memory: 20.00 MiB for activation: cuda:0: 50.00 MiB live, "));
    CHECK(contains(said, "held by gradient 50.00 MiB; "));
    CHECK_FALSE(contains(said, "\n"));
    CHECK(cudaGetLastError() == cudaSuccess);
    void* more = resource.allocate(10 * kMiB, kCategory, stream);
    resource.deallocate(more, 10 * kMiB, kCategory, stream);
    resource.deallocate(held, 50 * kMiB, Category::gradient, stream);
    CHECK(resource.trim() > 0);
    CHECK(fake_cuda()->used[0] == 0);
  }
}

TEST_CASE("cuda caching, fake: no memory for page tables is out of memory too") {
  for (const char* call : {"map", "set_access"}) {
    CAPTURE(call);
    const Fresh fresh;
    const auto pages = device_pages(kGpu);
    CachingResource resource(*pages);
    const Stream stream(kGpu);
    fake_cuda()->no_room = call;
    CHECK_THROWS_AS(resource.allocate(4 * kMiB, kCategory, stream), OutOfMemory);
    CHECK(fake_cuda()->used[0] == 0);
    fake_cuda()->no_room.clear();
    resource.deallocate(resource.allocate(4 * kMiB, kCategory, stream), 4 * kMiB, kCategory,
                        stream);
    resource.retire(stream);
  }
}

TEST_CASE("cuda caching, fake: pages move to other addresses, and their bytes come with none") {
  const Fresh fresh;
  fake_cuda()->capacity = 8 * kMiB;
  const auto pages = device_pages(kGpu);
  const Stream stream(kGpu);
  CachingResource resource(*pages);
  std::vector<void*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(resource.allocate(2 * kMiB, kCategory, stream));
  for (const std::size_t i : {0, 2}) {
    fill_async(blocks[i], 9, 2 * kMiB, stream);
    resource.deallocate(blocks[i], 2 * kMiB, kCategory, stream);
  }
  void* moved = resource.allocate(4 * kMiB, kCategory, stream);
  CHECK(moved > blocks[3]);
  CHECK(fake_cuda()->used[0] == 8 * kMiB);
  fill_async(moved, 1, 4 * kMiB, stream);
  resource.deallocate(moved, 4 * kMiB, kCategory, stream);
  for (const std::size_t i : {1, 3}) resource.deallocate(blocks[i], 2 * kMiB, kCategory, stream);
  CHECK(resource.trim() == 8 * kMiB);
  resource.retire(stream);
}

TEST_CASE("cuda caching, fake: two devices have memory of their own") {
  const Fresh fresh;
  fake_cuda()->devices = 2;
  const Device second{DeviceType::cuda, 1};
  for (const bool expandable : {true, false}) {
    const auto here = device_pages(kGpu, expandable), there = device_pages(second, expandable);
    const Stream stream(kGpu), other(second);
    CachingResource first(*here, {.expandable = expandable});
    CachingResource last(*there, {.expandable = expandable});
    void* one = first.allocate(3 * kMiB, kCategory, stream);
    void* two = last.allocate(70 * kMiB, kCategory, other);
    CHECK(fake_cuda()->used[0] < 64 * kMiB);
    CHECK(fake_cuda()->used[1] >= 70 * kMiB);
    first.deallocate(one, 3 * kMiB, kCategory, stream);
    last.deallocate(two, 70 * kMiB, kCategory, other);
  }
}

TEST_CASE("cuda caching, fake: a device that has failed is an error, and freeing still works") {
  const Fresh fresh;
  {
    const auto pages = device_pages(kGpu);
    const Stream first(kGpu), second(kGpu);
    CachingResource resource(*pages);
    std::vector<void*> blocks;
    for (int i = 0; i < 2; ++i) blocks.push_back(resource.allocate(4 * kMiB, kCategory, first));
    resource.deallocate(blocks[0], 4 * kMiB, kCategory, second);  // records an event
    fake_cuda()->broken = true;
    resource.deallocate(blocks[1], 4 * kMiB, kCategory, second);  // asks for it
    const std::string said =
        message_of<CudaError>([&] { resource.allocate(16 * kMiB, kCategory, first); });
    CHECK(contains(said, "an illegal memory access"));
    CHECK(resource.statistics().live_bytes == 0);
    fake_cuda()->broken = false;
  }
  cudaGetLastError();
}

TEST_CASE("cuda caching, fake: what CUDA refuses is refused, so that misuse is seen") {
  *fake_cuda() = {};
  const cuda::Driver& driver = cuda::driver();
  constexpr std::size_t kPage = FakeCuda::kPage;
  CUmemAllocationProp place{};
  place.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  place.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  const CUmemAccessDesc access{place.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  CUdeviceptr begin = 0;
  CUmemGenericAllocationHandle handle = 0;
  const auto seen = [](const char* what) {
    auto& problems = fake_cuda()->problems;
    CHECK(problems == std::vector<std::string>{what});
    problems.clear();
  };
  CHECK(driver.reserve(&begin, kPage + 1, kPage, 0, 0) != CUDA_SUCCESS);
  seen("reserve: not in pages");
  REQUIRE(driver.reserve(&begin, 4 * kPage, kPage, 0, 0) == CUDA_SUCCESS);
  CHECK(driver.create(&handle, kPage / 2, &place, 0) != CUDA_SUCCESS);
  seen("create: not in pages");
  REQUIRE(driver.create(&handle, kPage, &place, 0) == CUDA_SUCCESS);
  CHECK(driver.map(begin + 4 * kPage, kPage, 0, handle, 0) != CUDA_SUCCESS);
  seen("map: addresses that are not reserved");
  CHECK(driver.set_access(begin, kPage, &access, 1) != CUDA_SUCCESS);
  seen("set_access: not what was mapped");
  REQUIRE(driver.map(begin, kPage, 0, handle, 0) == CUDA_SUCCESS);
  CHECK(driver.map(begin, kPage, 0, handle, 0) != CUDA_SUCCESS);
  seen("map: memory is mapped there already");
  {
    const Stream stream(kGpu);
    fill_async(reinterpret_cast<void*>(begin), 1, 8, stream);
    StreamRef(stream).synchronize();
    seen("work on memory without access");
    REQUIRE(driver.set_access(begin, kPage, &access, 1) == CUDA_SUCCESS);
    fill_async(reinterpret_cast<void*>(begin), 1, 2 * kPage, stream);
    StreamRef(stream).synchronize();
    seen("work on addresses without memory");
  }
  CHECK(driver.free(begin, 4 * kPage) != CUDA_SUCCESS);
  seen("free: memory is mapped there");
  CHECK(driver.unmap(begin, 2 * kPage) != CUDA_SUCCESS);
  seen("unmap: not what was mapped");
  REQUIRE(driver.unmap(begin, kPage) == CUDA_SUCCESS);
  CHECK(fake_cuda()->used[0] == FakeCuda::kPage);  // the handle keeps it
  REQUIRE(driver.release(handle) == CUDA_SUCCESS);
  CHECK(fake_cuda()->used[0] == 0);
  CHECK(driver.release(handle) != CUDA_SUCCESS);
  seen("release: no such handle");
  REQUIRE(driver.free(begin, 4 * kPage) == CUDA_SUCCESS);
  CHECK(cudaFree(reinterpret_cast<void*>(begin)) != cudaSuccess);
  seen("cudaFree: not what cudaMalloc gave");
  cudaGetLastError();
}

}  // namespace ashlar
