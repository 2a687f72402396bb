// The calling thread's CUDA device, set for a scope.
#pragma once

#include <map>
#include <memory>
#include <mutex>

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

/// A thread that keeps its device gets no context on another, which costs memory there.
class CurrentDevice {
 public:
  /// @throws CudaError when the device does not work.
  explicit CurrentDevice(int index) : index_(index) {
    check(cudaGetDevice(&before_));
    if (index != before_) check(cudaSetDevice(index));
  }
  ~CurrentDevice() {
    if (index_ != before_) cudaSetDevice(before_);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int index_;
  int before_ = 0;
};

/// A T for each device, made on it when first asked for. Static ones are never destroyed: at exit
/// CUDA may be gone before they are.
template <class T>
class PerDevice {
 public:
  template <class Make>
  T& of(int device, const Make& make) {
    const std::scoped_lock lock(mutex_);
    std::unique_ptr<T>& made = made_[device];
    if (!made) {
      const CurrentDevice current(device);
      made = make();
    }
    return *made;
  }
  /// Null where none was asked for.
  T* find(int device) {
    const std::scoped_lock lock(mutex_);
    const auto found = made_.find(device);
    return found == made_.end() ? nullptr : found->second.get();
  }

 private:
  std::mutex mutex_;
  std::map<int, std::unique_ptr<T>> made_;
};

}  // namespace ashlar::cuda
