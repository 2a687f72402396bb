// Runs CUDA kernels on the CPU, one fiber per thread, to prove them without a GPU: it finds missing
// and divergent barriers, early exits, accesses out of bounds or misaligned, and with
// run_in_all_orders results that depend on the order of threads. cuda/device.h includes this.
#pragma once

#include <cstring>
#include <string_view>
#include <tuple>
#include <utility>

#include "cuda/launch.hpp"
#include "emulator/block.hpp"
#include "emulator/intrinsics.hpp"
#include "emulator/vectors.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

namespace ashlar::cuda::backend {

template <typename T, typename Tag>
T& shared_object() {
  static_assert(sizeof(T) <= kStaticSharedBytes, "use dynamic_shared for large arrays");
  struct Slot {
    std::uint64_t serial;
    void* at;
  };
  static constinit thread_local Slot slot{};
  emulator::SharedMemory& memory = emulator::Block::current().shared();
  if (slot.serial != memory.serial()) slot = {memory.serial(), memory.allocate(sizeof(T))};
  return *static_cast<T*>(slot.at);
}

inline void* dynamic_bytes() { return emulator::Block::current().dynamic_shared(); }

template <typename V>
V load_vector(const void* from, std::string_view call) {
  emulator::Block::current().check_access(from, sizeof(V), call);
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <typename V>
void store_vector(void* to, const V& value, std::string_view call) {
  emulator::Block::current().check_access(to, sizeof value, call);
  std::memcpy(to, &value, sizeof value);
}
inline uint4 load16(const void* from) { return load_vector<uint4>(from, "load16"); }
inline void store16(void* to, uint4 value) { store_vector(to, value, "store16"); }
inline uint2 load8(const void* from) { return load_vector<uint2>(from, "load8"); }
inline void store8(void* to, uint2 value) { store_vector(to, value, "store8"); }

template <typename... P>
void start(dim3 grid, dim3 block, std::size_t shared_bytes, const LaunchSite& site,
           void (*kernel)(P...), std::tuple<P...> arguments) {
  emulator::Launch launch{
      grid, block, shared_bytes, site.at, emulator::current_order(), [kernel, arguments] {
        std::apply(kernel, arguments);
      }};
  site.stream.enqueue([launch = std::move(launch)] { emulator::run_grid(launch); });
}

}  // namespace ashlar::cuda::backend
