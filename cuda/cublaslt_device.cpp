// The handles of this process.
#include <map>
#include <memory>
#include <mutex>

#include "cuda/current_device.hpp"
#include "cuda/native_stream.hpp"
#include "cuda/products.hpp"
#include "ops/cuda_backend.hpp"

namespace ashlar {
namespace cuda {
namespace {

struct Handles {
  std::mutex mutex;
  std::map<int, std::unique_ptr<const CublasLt>> of_device;
};

/// They live until the process ends: at exit CUDA may be gone before they are.
Handles& handles() {
  static Handles& instance = *new Handles;
  return instance;
}

std::unique_ptr<const CublasLt> make_handle(int device) {
  const CurrentDevice current(device);
  return std::make_unique<const CublasLt>(CublasLtLibrary::installed(),
                                          compute_capability({DeviceType::cuda, device}),
                                          process_algorithms());
}

}  // namespace

ProductPlace product_place(StreamRef stream) {
  const auto native = static_cast<cudaStream_t>(native_stream(stream));
  const int device = device_of(stream);
  const std::scoped_lock lock(handles().mutex);
  std::unique_ptr<const CublasLt>& handle = handles().of_device[device];
  if (!handle) handle = make_handle(device);
  return {*handle, native};
}

Algorithms& process_algorithms() {
  static Algorithms& instance = *new Algorithms;
  return instance;
}

}  // namespace cuda

int compute_capability(Device device) {
  int major = 0, minor = 0;
  cuda::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index));
  cuda::check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index));
  return 10 * major + minor;
}

}  // namespace ashlar
