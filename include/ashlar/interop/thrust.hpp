// Thrust's temporary storage from our memory, in the order of a stream. Compile with nvcc:
//
//   ashlar::ThrustAllocator temporary(memory, stream);
//   thrust::sort(thrust::cuda::par(temporary).on(temporary.stream()), first, last);
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "ashlar/interop/cuda_stream.hpp"
#include "ashlar/memory_resource.hpp"

namespace ashlar {

/// Copyable; copies share memory and stream. What is allocated is for work on the stream, and freed
/// behind the work that is there by then: also right with `par_nosync`, which does not wait.
class ThrustAllocator {
 public:
  using value_type = char;

  /// @param memory of the stream's device; outlives this, as does the stream
  ThrustAllocator(MemoryResource& memory, StreamRef stream) : memory_(&memory), stream_(stream) {}

  /// For `.on()`. @throws InvalidArgument for a stream of the CPU.
  cudaStream_t stream() const { return static_cast<cudaStream_t>(cuda::native_stream(stream_)); }

  /// @throws OutOfMemory, which passes through Thrust.
  char* allocate(std::ptrdiff_t bytes) {
    return static_cast<char*>(memory_->allocate(bytes, Category::workspace, stream_));
  }
  void deallocate(char* pointer, std::size_t bytes) noexcept {
    memory_->deallocate(pointer, static_cast<std::int64_t>(bytes), Category::workspace, stream_);
  }

 private:
  MemoryResource* memory_;
  StreamRef stream_;
};

}  // namespace ashlar
