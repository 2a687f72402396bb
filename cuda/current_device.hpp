// The calling thread's CUDA device, set for a scope.
#pragma once

#include "cuda/check.h"

namespace ashlar::cuda {

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
