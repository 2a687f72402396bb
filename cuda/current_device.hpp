// The calling thread's CUDA device, set for a scope.
#pragma once

#include "ashlar/device.hpp"
#include "cuda/check.h"

namespace ashlar::cuda {

/// A stream's; of the inline stream the calling thread's. @throws CudaError.
inline int device_of(StreamRef stream) {
  if (!stream.is_inline()) return stream.device().index;
  int device = 0;
  check(cudaGetDevice(&device));
  return device;
}

class CurrentDevice {
 public:
  /// @throws CudaError when the device does not work.
  explicit CurrentDevice(int index) {
    check(cudaGetDevice(&before_));
    if (index != before_) check(cudaSetDevice(index));
  }
  ~CurrentDevice() { cudaSetDevice(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

}  // namespace ashlar::cuda
