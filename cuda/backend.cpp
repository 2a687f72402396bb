// Which of CUDA's kernels serves an op: a library's before our own.
#include <fmt/format.h>

#include "cuda/attention.hpp"
#include "cuda/kernels.hpp"
#include "cuda/products.hpp"
#include "ops/cuda_backend.hpp"
#include "ops/product/machine.hpp"

namespace ashlar {
namespace {

/// sm 0: of GPUs for which no plans of attention are known.
template <int sm, bool deterministic>
const DeviceKernel* find_on_gpu(std::string_view op) {
  if (const DeviceKernel* kernel = cuda::find_attention(op, sm, deterministic)) return kernel;
  if (const DeviceKernel* kernel = cuda::find_product(op)) return kernel;
  return cuda::find_kernel(op);
}

template <int sm>
auto finder(bool deterministic) {
  return deterministic ? &find_on_gpu<sm, true> : &find_on_gpu<sm, false>;
}

}  // namespace

Backend cuda_backend(int threads, int sm, bool deterministic) {
  Backend backend = host_backend(threads);
  backend.cpu = fmt::format("sm_{}", sm);
  backend.device = DeviceType::cuda;
  backend.find_kernel = sm == 80    ? finder<80>(deterministic)
                        : sm == 90  ? finder<90>(deterministic)
                        : sm == 100 ? finder<100>(deterministic)
                                    : finder<0>(deterministic);
  return backend;
}

std::string attention_engine(Device device) {
  const std::string plans = cuda::attention_plans(device);
  return plans.empty() ? "ours" : plans;
}

}  // namespace ashlar
