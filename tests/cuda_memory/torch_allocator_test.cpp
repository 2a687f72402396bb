// PyTorch's pluggable allocator as torch uses it: loaded by name, called by device and stream.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <vector>

#include "ashlar/error.hpp"
#include "support/fake_cuda/fake_cuda.hpp"
#include "support/temporary_folder.hpp"

namespace {

constexpr std::ptrdiff_t kMiB = 1 << 20;

/// What torch finds in the library, and its streams.
struct Torch {
  template <typename Function>
  static void find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(::dlsym(library, name));
    REQUIRE((function != nullptr));
  }
  Torch() {
    void* library = ::dlopen(ASHLAR_TORCH_ALLOCATOR, RTLD_NOW | RTLD_LOCAL);
    REQUIRE_MESSAGE(library != nullptr, ::dlerror());
    find(library, "ashlar_torch_alloc", alloc);
    find(library, "ashlar_torch_free", free);
    find(library, "ashlar_torch_record_stream", record_stream);
    find(library, "ashlar_torch_empty_cache", empty_cache);
    *fake_cuda() = {};
    fake_cuda()->devices = 3;
  }
  ~Torch() {
    fake_cuda_drain();
    empty_cache();
    for (const std::int64_t used : fake_cuda()->used) CHECK(used == 0);
    for (const std::string& problem : fake_cuda()->problems) FAIL_CHECK(problem);
    for (const cudaStream_t stream : streams_) cudaStreamDestroy(stream);
  }
  cudaStream_t stream(int device) {
    cudaSetDevice(device);
    cudaStreamCreateWithFlags(&streams_.emplace_back(), 0);
    cudaSetDevice(0);
    return streams_.back();
  }

  void* (*alloc)(std::size_t bytes, int device, cudaStream_t stream);
  void (*free)(void* pointer, std::size_t bytes, int device, cudaStream_t stream);
  void (*record_stream)(void* pointer, cudaStream_t stream);
  void (*empty_cache)();

 private:
  std::vector<cudaStream_t> streams_;
};

std::uint8_t last_byte(const void* memory, std::ptrdiff_t bytes, cudaStream_t stream) {
  std::uint8_t value = 0;
  cudaMemcpyAsync(&value, static_cast<const std::uint8_t*>(memory) + bytes - 1, 1,
                  cudaMemcpyDefault, stream);
  cudaStreamSynchronize(stream);
  return value;
}

}  // namespace

TEST_CASE("cuda torch allocator: memory of each device, cached, on torch's default stream too") {
  Torch torch;
  const cudaStream_t first = torch.stream(0), last = torch.stream(2);
  for (const auto& [device, stream] :
       {std::pair(0, first), std::pair(2, last), std::pair<int, cudaStream_t>(0, nullptr)}) {
    CAPTURE(device);
    void* memory = torch.alloc(5 * kMiB, device, stream);
    CHECK(fake_cuda()->used[static_cast<std::size_t>(device)] >= 5 * kMiB);
    CHECK(fake_cuda()->current == 0);
    cudaMemsetAsync(memory, 7, 5 * kMiB, stream);
    CHECK(last_byte(memory, 5 * kMiB, stream) == 7);
    torch.free(memory, 5 * kMiB, device, stream);
    const std::int64_t calls = fake_cuda()->calls;
    CHECK(torch.alloc(5 * kMiB, device, stream) == memory);
    CHECK(fake_cuda()->calls == calls);
    torch.free(memory, 5 * kMiB, device, stream);
    torch.empty_cache();
    CHECK(fake_cuda()->used[static_cast<std::size_t>(device)] == 0);
  }
  void* nothing = torch.alloc(0, 0, nullptr);
  CHECK(nothing != nullptr);
  torch.free(nothing, 0, 0, nullptr);
  torch.free(nullptr, 0, 0, nullptr);
}

TEST_CASE("cuda torch allocator: what is freed on a stream serves another after its last use") {
  Torch torch;
  const cudaStream_t first = torch.stream(0), second = torch.stream(0);
  void* memory = torch.alloc(5 * kMiB, 0, first);
  cudaMemsetAsync(memory, 1, 5 * kMiB, first);
  torch.free(memory, 5 * kMiB, 0, first);
  REQUIRE(torch.alloc(5 * kMiB, 0, second) == memory);
  cudaMemsetAsync(memory, 2, 5 * kMiB, second);
  cudaStreamSynchronize(second);
  cudaStreamSynchronize(first);
  CHECK(last_byte(memory, 5 * kMiB, second) == 2);
  torch.free(memory, 5 * kMiB, 0, second);
}

TEST_CASE("cuda torch allocator: memory with a recorded stream is reused after its work") {
  for (const bool recorded : {true, false}) {
    CAPTURE(recorded);
    Torch torch;
    const cudaStream_t own = torch.stream(0), side = torch.stream(0);
    void* memory = torch.alloc(5 * kMiB, 0, own);
    cudaMemsetAsync(memory, 1, 5 * kMiB, side);  // late, and nothing orders it but the record
    if (recorded) torch.record_stream(memory, side);
    torch.free(memory, 5 * kMiB, 0, own);
    REQUIRE(torch.alloc(5 * kMiB, 0, own) == memory);
    cudaMemsetAsync(memory, 2, 5 * kMiB, own);
    cudaStreamSynchronize(own);
    cudaStreamSynchronize(side);
    CHECK(last_byte(memory, 5 * kMiB, own) == (recorded ? 2 : 1));
    torch.free(memory, 5 * kMiB, 0, own);
  }
}

TEST_CASE("cuda torch allocator: failures are exceptions of one line, after which it serves on") {
  Torch torch;
  const cudaStream_t stream = torch.stream(1);
  fake_cuda()->capacity = 64 * kMiB;
  const std::string said =
      message_of<std::runtime_error>([&] { torch.alloc(100 * kMiB, 1, stream); });
  CHECK(contains(said, "out of memory: 100.00 MiB for activation: cuda:1: 0 B live"));
  CHECK_FALSE(contains(said, "\n"));
  CHECK_THROWS_AS(torch.alloc(1, 3, nullptr), std::runtime_error);  // no such device
  CHECK(cudaGetLastError() == cudaSuccess);
  void* memory = torch.alloc(20 * kMiB, 1, stream);
  torch.free(memory, 20 * kMiB, 1, stream);
}
