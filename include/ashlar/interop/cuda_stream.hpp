// CUDA's streams as ours and ours as CUDA's. Handles are cudaStream_t, which any void* can be.
#pragma once

#include <memory>

#include "ashlar/device.hpp"

namespace ashlar {

/// A stream of CUDA that somebody else owns: torch's, a framework's, a program's own. Its end waits
/// for nothing and destroys nothing.
class BorrowedStream {
 public:
  /// @param stream outlives this; null is the device's legacy default stream
  /// @throws InvalidArgument for another device than one of CUDA; CudaError without CUDA.
  BorrowedStream(void* stream, Device device);
  ~BorrowedStream();
  BorrowedStream(BorrowedStream&&) noexcept;
  BorrowedStream& operator=(BorrowedStream&&) noexcept;
  /// Two BorrowedStreams of one stream are two streams to a CachingResource: keep one, and `retire`
  /// it before it goes.
  operator StreamRef() const {  // NOLINT(google-explicit-constructor)
    return StreamRef(state_.get());
  }

 private:
  std::unique_ptr<detail::StreamState> state_;
};

namespace cuda {

/// A cudaStream_t; of the inline stream the legacy default stream. @throws InvalidArgument for a
/// stream of the CPU; CudaError without CUDA.
void* native_stream(StreamRef stream);

}  // namespace cuda
}  // namespace ashlar
