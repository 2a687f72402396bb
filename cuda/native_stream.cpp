#include "cuda/native_stream.hpp"

#include "ashlar/error.hpp"

namespace ashlar::cuda {

void* native_stream(StreamRef stream) {
  if (stream.is_inline()) return nullptr;
  throw InvalidArgument("a stream of the CPU was given to a kernel of CUDA; pass the device's own");
}

}  // namespace ashlar::cuda
