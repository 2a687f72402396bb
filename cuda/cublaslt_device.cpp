// The handles of this process.
#include <memory>

#include "cuda/current_device.hpp"
#include "cuda/native_stream.hpp"
#include "cuda/products.hpp"
#include "ops/cuda_backend.hpp"

namespace ashlar {
namespace cuda {

ProductPlace product_place(StreamRef stream) {
  static auto& handles = *new PerDevice<const CublasLt>;
  const int device = device_of(stream);
  const CublasLt& handle = handles.of(device, [device] {
    return std::make_unique<const CublasLt>(CublasLtLibrary::installed(),
                                            compute_capability({DeviceType::cuda, device}),
                                            process_algorithms());
  });
  return {handle, static_cast<cudaStream_t>(native_stream(stream))};
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
