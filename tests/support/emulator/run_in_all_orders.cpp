#include "emulator/run_in_all_orders.hpp"

namespace emulator {

std::vector<Order> all_orders() {
  using enum Order::Kind;
  return {{ascending}, {descending}, {shuffled, 1}, {shuffled, 2}, {shuffled, 3}};
}

void detail::compare_bytes(const void* a, const void* b, std::size_t bytes,
                           std::size_t element_bytes, Order order) {
  if (bytes == 0 || std::memcmp(a, b, bytes) == 0) return;
  std::size_t at = 0;
  while (static_cast<const std::byte*>(a)[at] == static_cast<const std::byte*>(b)[at]) ++at;
  throw KernelError(fmt::format(
      "result {} depends on the order of threads: ascending and {} differ; look for a barrier "
      "that is missing",
      at / element_bytes, name_of(order)));
}

}  // namespace emulator
