// Seconds of work on a GPU between two events of a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <vector>

#include "ashlar/device.hpp"
#include "cuda/check.h"
#include "cuda/native_stream.hpp"

namespace ashlar::perf {

/// Each of `rounds` runs of `work`, which enqueues on `stream`, after `warm_up` that do not count.
/// A fill of 256 MiB goes ahead of each: it takes the device longer than `work` takes the host,
/// whose time so is not counted, and leaves the second-level cache as cold as a step does.
inline std::vector<double> device_seconds(StreamRef stream, int warm_up, int rounds,
                                          const std::function<void()>& work) {
  auto* native = static_cast<cudaStream_t>(cuda::native_stream(stream));
  constexpr std::size_t kAhead = 256 << 20;
  void* ahead = nullptr;
  cuda::check(cudaMalloc(&ahead, kAhead));
  cudaEvent_t begin{}, end{};
  cuda::check(cudaEventCreate(&begin));
  cuda::check(cudaEventCreate(&end));
  std::vector<double> seconds;
  for (int round = -warm_up; round < rounds; ++round) {
    cuda::check(cudaMemsetAsync(ahead, 0, kAhead, native));
    cuda::check(cudaEventRecord(begin, native));
    work();
    cuda::check(cudaEventRecord(end, native));
    cuda::check(cudaEventSynchronize(end));
    float milliseconds = 0;
    cuda::check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (round >= 0) seconds.push_back(1e-3 * static_cast<double>(milliseconds));
  }
  cuda::check(cudaEventDestroy(begin));
  cuda::check(cudaEventDestroy(end));
  cuda::check(cudaFree(ahead));
  return seconds;
}

}  // namespace ashlar::perf
