// A kernel is right only if every order of its blocks, warps and lanes gives the same bits.
#pragma once

#include <fmt/core.h>

#include <cstring>
#include <tuple>
#include <vector>

#include "emulator/block.hpp"
#include "emulator/order.hpp"

namespace emulator {

/// Ascending, descending, and three times shuffled.
std::vector<Order> all_orders();

namespace detail {

void compare_bytes(const void* a, const void* b, std::size_t bytes, std::size_t element_bytes,
                   Order order);

template <typename T>
void compare(const std::vector<T>& a, const std::vector<T>& b, Order order) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (a.size() != b.size()) throw KernelError("a run gave another number of results");
  compare_bytes(a.data(), b.data(), a.size() * sizeof(T), sizeof(T), order);
}

template <typename... T>
void compare(const std::tuple<T...>& a, const std::tuple<T...>& b, Order order) {
  const auto each = [&]<std::size_t... I>(std::index_sequence<I...>) {
    (compare(std::get<I>(a), std::get<I>(b), order), ...);
  };
  each(std::index_sequence_for<T...>{});
}

}  // namespace detail

/// Calls `run`, which launches kernels and returns a vector of results or a tuple of vectors, in
/// each order. @returns the results. @throws KernelError if two orders differ in a bit, naming the
/// first element.
template <typename Run>
auto run_in_all_orders(const Run& run) {
  const auto run_in = [&](Order order) {
    const OrderScope scope(order);
    return run();
  };
  const std::vector<Order> orders = all_orders();
  const auto first = run_in(orders[0]);
  for (std::size_t i = 1; i < orders.size(); ++i)
    detail::compare(first, run_in(orders[i]), orders[i]);
  return first;
}

}  // namespace emulator
