// The driver's functions that the runtime does not wrap, found at run time: a program that links
// libcuda does not start where there is no driver.
#pragma once

#include <cuda.h>

#include <source_location>

namespace ashlar::cuda {

/// @throws CudaError naming the call's line and the driver's number.
void check(CUresult status, std::source_location at = std::source_location::current());

/// Virtual memory management (CUDA Driver API, section 6.14).
struct Driver {
  decltype(&cuMemGetAllocationGranularity) granularity;
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemAddressFree) free;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;
};

/// Found once. @throws CudaError naming the function that is missing.
const Driver& driver();

}  // namespace ashlar::cuda
