// What a communicator over NCCL stands on. In tests the device is the CPU and the library a fake.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "ashlar/caching_resource.hpp"
#include "comm/reduction_scratch.hpp"
#include "cuda/nccl_library.hpp"
#include "runtime/stream_state.hpp"

namespace ashlar::cuda {

struct NcclPlace {
  const NcclLibrary& library;
  Device device;
  /// The device's, for scratch and windows; shared by communicators that are split off.
  std::shared_ptr<CachingResource> memory;
  /// The cudaStream_t behind a stream of the device.
  void* (*native_stream)(StreamRef stream);
  /// A stream of the device, for the collectives of one communicator.
  std::function<std::unique_ptr<detail::StreamState>(Device device)> make_stream =
      detail::make_stream;
  /// Makes `device` the calling thread's.
  std::function<void()> make_current = [] {};
  std::int64_t scratch_bytes = detail::ReductionScratch::kMost;
  std::chrono::milliseconds timeout{60'000};

  cudaStream_t native(StreamRef stream) const {
    return static_cast<cudaStream_t>(native_stream(stream));
  }
};

}  // namespace ashlar::cuda
