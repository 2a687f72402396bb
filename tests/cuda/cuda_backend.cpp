// Calls on the first GPU, each operand in an allocation of just its size, on a stream that is not
// the default one; what is freed serves the next operand of that size, since cudaMalloc is slow,
// under a sanitizer above all. Results are compared over three runs, or as many as ASHLAR_GPU_RUNS
// says: under a sanitizer one is enough.
#include <algorithm>
#include <cstdlib>
#include <map>

#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "cuda/check.h"
#include "cuda/native_stream.hpp"
#include "emulated/device_call.hpp"

namespace ashlar::test::backend {

namespace {

/// Free memory by its size; all work is on one stream.
std::map<std::size_t, std::vector<void*>>& free_memory() {
  static std::map<std::size_t, std::vector<void*>> memory;
  return memory;
}

void* take(std::size_t bytes) {
  std::vector<void*>& spare = free_memory()[bytes];
  void* memory = nullptr;
  if (spare.empty()) {
    cuda::check(cudaMalloc(&memory, bytes));
  } else {
    memory = spare.back();
    spare.pop_back();
  }
  return memory;
}

}  // namespace

std::shared_ptr<std::byte> allocate(std::size_t bytes) {
  bytes = std::max<std::size_t>(bytes, 1);
  const std::shared_ptr<std::byte> owner(
      static_cast<std::byte*>(take(bytes)),
      [bytes](std::byte* memory) { free_memory()[bytes].push_back(memory); });
  cuda::check(cudaMemsetAsync(owner.get(), 0xff, bytes,
                              static_cast<cudaStream_t>(cuda::native_stream(stream()))));
  return owner;
}

void copy(void* to, const void* from, std::size_t bytes) {
  copy_async(to, from, static_cast<std::int64_t>(bytes), stream());
  stream().synchronize();
}

StreamRef stream() {
  static const Stream stream(Device{DeviceType::cuda, 0});
  return stream;
}

std::vector<std::byte> repeat(const std::function<std::vector<std::byte>()>& run) {
  const char* runs = std::getenv("ASHLAR_GPU_RUNS");
  const std::vector<std::byte> first = run();
  for (int done = 1; done < (runs == nullptr ? 3 : std::atoi(runs)); ++done)
    if (run() != first) throw Error("two runs on the GPU differ in their bits");
  return first;
}

}  // namespace ashlar::test::backend
