// What the first GPU of a machine is and that a kernel of ours runs on it, as one line of JSON,
// with the rates of ten copies on it (bytes read and written over the time between events).
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

#include "ashlar/device.hpp"
#include "ashlar/error.hpp"
#include "cuda/check.h"
#include "cuda/kernels.hpp"

namespace ashlar::cuda {
namespace {

/// Fills bytes with a kernel and looks at them.
void launch_one() {
  constexpr std::int64_t kBytes = 1001;
  void* device = nullptr;
  std::vector<std::byte> host(static_cast<std::size_t>(kBytes), std::byte{1});
  check(cudaMalloc(&device, kBytes));
  check(cudaMemcpy(device, host.data(), kBytes, cudaMemcpyHostToDevice));
  fill_zeros({}, device, kBytes - 1);
  check(cudaMemcpy(host.data(), device, kBytes, cudaMemcpyDeviceToHost));
  check(cudaFree(device));
  if (std::ranges::count(host, std::byte{0}) != kBytes - 1 || host.back() != std::byte{1})
    throw Error("a kernel ran, but its results are wrong");
}

/// Gigabytes per second, of one copy each.
std::vector<double> copy_rates() {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  void* memory = nullptr;
  cudaEvent_t begin{}, end{};
  check(cudaMalloc(&memory, 2 * kBytes));
  check(cudaMemset(memory, 0x3c, 2 * kBytes));
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<double> rates;
  for (int i = -3; i < 10; ++i) {  // the first three warm up
    check(cudaEventRecord(begin));
    check(cudaMemcpyAsync(memory, static_cast<std::byte*>(memory) + kBytes, kBytes,
                          cudaMemcpyDeviceToDevice));
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i >= 0) rates.push_back(2e-6 * static_cast<double>(kBytes) / milliseconds);
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  check(cudaFree(memory));
  return rates;
}

void describe() {
  cudaDeviceProp device{};
  int driver = 0, runtime = 0;
  check(cudaGetDeviceProperties(&device, 0));
  check(cudaDriverGetVersion(&driver));
  check(cudaRuntimeGetVersion(&runtime));
  launch_one();
  fmt::print(R"({{"name":"{}","sm":{},"multiprocessors":{},"memory_bytes":{},"l2_bytes":{},)"
             R"("shared_bytes_per_block":{},"driver":"{}.{}","runtime":"{}.{}","kernel":"ran",)"
             R"("copy_gigabytes_per_second":[{:.1f}]}})"
             "\n",
             device.name, 10 * device.major + device.minor, device.multiProcessorCount,
             device.totalGlobalMem, device.l2CacheSize, device.sharedMemPerBlockOptin,
             driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
             fmt::join(copy_rates(), ","));
}

}  // namespace
}  // namespace ashlar::cuda

int main() {
  try {
    ashlar::parse_device("cuda");
    ashlar::cuda::describe();
  } catch (const ashlar::InvalidArgument& error) {
    std::fprintf(stderr, "skipped: %s\n", error.what());
    return 77;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "describe_cuda: %s\n", error.what());
    return 1;
  }
}
