// Calls on the emulator, in guarded memory and in all orders of threads.
#include <cstring>

#include "emulated/device_call.hpp"
#include "emulator/memory_map.hpp"
#include "emulator/run_in_all_orders.hpp"

namespace ashlar::test::backend {

std::shared_ptr<std::byte> allocate(std::size_t bytes) {
  const auto memory = std::make_shared<emulator::GuardedMemory>(bytes);
  return {memory, memory->data()};
}

void copy(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

StreamRef stream() { return {}; }

std::vector<std::byte> repeat(const std::function<std::vector<std::byte>()>& run) {
  return emulator::run_in_all_orders(run);
}

}  // namespace ashlar::test::backend
