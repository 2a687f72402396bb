#include "cudnn/devices.hpp"

#include <fmt/format.h>

#include "ashlar/error.hpp"

namespace ashlar::test {
namespace {

/// From NVIDIA's data sheets and the CUDA programming guide's table of compute capabilities.
struct Gpu {
  int sm, processors;
  std::int64_t shared_bytes;  // that a block may have
  std::int64_t memory, l2_bytes;
  int clock_khz, memory_clock_khz;
};
constexpr Gpu kGpus[] = {
    {80, 108, 166'912, 85'094'760'448, 41'943'040, 1'410'000, 1'593'000},      // A100
    {90, 132, 232'448, 150'754'820'096, 62'914'560, 1'980'000, 3'201'000},     // H200
    {100, 148, 232'448, 191'514'017'792, 132'644'864, 1'965'000, 3'996'000}};  // B200

}  // namespace

std::string description_of(int sm) {
  for (const Gpu& gpu : kGpus)
    if (gpu.sm == sm)
      return fmt::format(
          R"({{"deviceVer":{},"multiProcessorCount":{},"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
          R"("maxSharedMemoryPerBlockOptin":{},"reservedSharedMemoryPerBlock":1024,)"
          R"("maxRegistersPerSM":65536,"maxCtasPerSM":32,"maxThreadsPerBlock":1024,)"
          R"("maxThreadsPerSM":2048,"regsPerBlock":65536,"totalGlobalMem":{},"smClockRateKHz":{},)"
          R"("l2CacheSize":{},"maxBlockSize":[1024,1024,64],"memClockRateKHz":{},)"
          R"("maxGridSize":[2147483647,65535,65535],"supportCoopLaunch":1,"pciDeviceId":0,)"
          R"("isTccDriver":0,"cudaDeviceId":0,"driverVer":13000,"deviceName":"sm_{}"}})",
          10 * sm, gpu.processors, gpu.shared_bytes, gpu.memory, gpu.clock_khz, gpu.l2_bytes,
          gpu.memory_clock_khz, sm);
  throw InvalidArgument(fmt::format("no GPU of sm_{} is described: 80, 90 and 100 are", sm));
}

}  // namespace ashlar::test
