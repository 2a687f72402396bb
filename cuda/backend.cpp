// Which of CUDA's kernels serves an op: a library's before our own.
#include "cuda/kernels.hpp"
#include "cuda/products.hpp"
#include "ops/cuda_backend.hpp"
#include "ops/product/machine.hpp"

namespace ashlar {
namespace {

using Find = const DeviceKernel* (*)(std::string_view op);

/// The first that knows an op serves it.
constexpr Find kTables[] = {cuda::find_product, cuda::find_kernel};

const DeviceKernel* find_on_gpu(std::string_view op) {
  for (const Find find : kTables)
    if (const DeviceKernel* kernel = find(op)) return kernel;
  return nullptr;
}

}  // namespace

Backend cuda_backend(int threads) {
  Backend backend = host_backend(threads);
  backend.device = DeviceType::cuda;
  backend.find_kernel = find_on_gpu;
  return backend;
}

}  // namespace ashlar
