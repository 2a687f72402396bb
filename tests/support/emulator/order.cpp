#include "emulator/order.hpp"

#include <fmt/core.h>

#include <atomic>

namespace emulator {
namespace {

std::atomic<Order> order_now{Order{}};

}  // namespace

std::string name_of(Order order) {
  switch (order.kind) {
    case Order::Kind::ascending:
      return "ascending";
    case Order::Kind::descending:
      return "descending";
    case Order::Kind::shuffled:
      break;
  }
  return fmt::format("shuffled with seed {}", order.seed);
}

OrderScope::OrderScope(Order order) : before_(order_now.exchange(order)) {}
OrderScope::~OrderScope() { order_now = before_; }
Order current_order() { return order_now; }

}  // namespace emulator
