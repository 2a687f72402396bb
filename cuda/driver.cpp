#include "cuda/driver.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "cuda/check.h"

namespace ashlar::cuda {
namespace {

template <typename Function>
void find(const char* name, Function& function) {
  constexpr unsigned kSince = 12000;
  void* address = nullptr;
  cudaDriverEntryPointQueryResult result{};
  check(cudaGetDriverEntryPointByVersion(name, &address, kSince, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess || address == nullptr)
    throw CudaError(
        fmt::format("the CUDA driver lacks {}: a driver of CUDA 12 or later is needed", name));
  function = reinterpret_cast<Function>(address);
}

Driver find_all() {
  Driver found{};
  find("cuMemGetAllocationGranularity", found.granularity);
  find("cuMemAddressReserve", found.reserve);
  find("cuMemAddressFree", found.free);
  find("cuMemCreate", found.create);
  find("cuMemRelease", found.release);
  find("cuMemMap", found.map);
  find("cuMemUnmap", found.unmap);
  find("cuMemSetAccess", found.set_access);
  return found;
}

}  // namespace

void check(CUresult status, std::source_location at) {
  if (status == CUDA_SUCCESS) return;
  throw CudaError(fmt::format("{}:{}: the CUDA driver's error {}{}", at.file_name(), at.line(),
                              static_cast<int>(status),
                              status == CUDA_ERROR_OUT_OF_MEMORY ? " (out of memory)" : ""));
}

const Driver& driver() {
  static const Driver found = find_all();
  return found;
}

}  // namespace ashlar::cuda
