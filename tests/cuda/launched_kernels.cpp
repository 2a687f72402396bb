#include "cuda/launched_kernels.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "ashlar/error.hpp"

namespace {

struct Kernels {
  std::mutex mutex;
  std::map<const void*, std::string> names;  // by the host's address of a kernel
  std::set<const void*> launched;
  std::ofstream file;
};

Kernels& kernels() {  // made by the first registration, before main
  static Kernels all;
  return all;
}

void note_launch(const void* kernel) {
  const std::scoped_lock lock(kernels().mutex);
  if (!kernels().launched.insert(kernel).second || !kernels().file.is_open()) return;
  kernels().file << fmt::format(R"({{"launched":"{}"}})", kernels().names[kernel]) << std::endl;
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
  note_launch(kernel);
  return __real_cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes, stream);
}
// NOLINTEND(bugprone-reserved-identifier)

}  // extern "C"

namespace ashlar::test {

void write_kernels(const std::filesystem::path& file) {
  const std::scoped_lock lock(kernels().mutex);
  std::set<std::string> names;
  for (const auto& [host, name] : kernels().names) names.insert(name);
  kernels().file.open(file);
  kernels().file << fmt::format(R"({{"kernels":["{}"]}})", fmt::join(names, "\",\"")) << std::endl;
  if (!kernels().file) throw Error(fmt::format("cannot write {}", file.string()));
}

}  // namespace ashlar::test
