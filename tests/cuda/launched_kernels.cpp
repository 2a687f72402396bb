#include "cuda/launched_kernels.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <mutex>
#include <set>

namespace {

struct Kernels {
  std::mutex mutex;
  std::map<const void*, std::string> names;  // by the host's address of a kernel
  std::set<const void*> launched;
};

Kernels& kernels() {  // made by the first registration, before main
  static Kernels all;
  return all;
}

std::string list(const std::set<std::string>& names) {
  return names.empty() ? "[]" : fmt::format("[\"{}\"]", fmt::join(names, "\",\""));
}

}  // namespace

extern "C" {

// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names
void __real___cudaRegisterFunction(void** module, const char* host, char* device, const char* name,
                                   int threads, uint3* thread, uint3* block, dim3* block_dim,
                                   dim3* grid_dim, int* warp);
void __wrap___cudaRegisterFunction(void** module, const char* host, char* device, const char* name,
                                   int threads, uint3* thread, uint3* block, dim3* block_dim,
                                   dim3* grid_dim, int* warp) {
  {
    const std::scoped_lock lock(kernels().mutex);
    kernels().names.emplace(host, name);
  }
  __real___cudaRegisterFunction(module, host, device, name, threads, thread, block, block_dim,
                                grid_dim, warp);
}

cudaError_t __real_cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments,
                                    std::size_t shared_bytes, cudaStream_t stream);
cudaError_t __wrap_cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments,
                                    std::size_t shared_bytes, cudaStream_t stream) {
  {
    const std::scoped_lock lock(kernels().mutex);
    kernels().launched.insert(kernel);
  }
  return __real_cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}
// NOLINTEND(bugprone-reserved-identifier)

}  // extern "C"

namespace ashlar::test {

std::string kernels_as_json() {
  const std::scoped_lock lock(kernels().mutex);
  std::set<std::string> all, launched;
  for (const auto& [host, name] : kernels().names) {
    all.insert(name);
    if (kernels().launched.contains(host)) launched.insert(name);
  }
  return fmt::format(R"({{"kernels":{},"launched":{}}})", list(all), list(launched));
}

}  // namespace ashlar::test
