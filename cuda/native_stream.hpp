// The CUDA stream behind a StreamRef.
#pragma once

#include "ashlar/device.hpp"

namespace ashlar::cuda {

/// A cudaStream_t; of the inline stream the legacy default stream. @throws InvalidArgument for a
/// stream of the CPU.
void* native_stream(StreamRef stream);

}  // namespace ashlar::cuda
