// Between the two halves of the fake CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

#include "support/fake_cuda/fake_cuda.hpp"

namespace fake {

using Address = unsigned long long;  // the driver's CUdeviceptr

void problem(const std::string& text);
/// Remembers an error for cudaGetLastError.
cudaError_t status(cudaError_t value);
cudaError_t invalid(const std::string& text);
/// Counts a call that may fail. @return how it does
cudaError_t may_fail(cudaError_t how = cudaErrorUnknown);

/// Copies between the host's memory and what lies behind addresses, of devices or the host.
void read(Address from, char* to, std::size_t bytes);
void write(Address to, const char* from, std::size_t bytes);
void fill(Address to, int value, std::size_t bytes);
/// Memory of the host that is not pinned.
bool pageable(const void* at);

}  // namespace fake
