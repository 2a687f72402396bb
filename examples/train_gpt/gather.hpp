// A small value of every rank, on every rank.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ashlar/communicator.hpp"

namespace train_gpt {

/// By rank. Collective.
template <typename T>
std::vector<T> gather(ashlar::Communicator& world, T mine, std::string_view label) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto bytes = static_cast<std::int64_t>(sizeof(T));
  std::vector<T> all(static_cast<std::size_t>(world.size()));
  const ashlar::Transfer transfer{{&mine, ashlar::DType::u8, {bytes}},
                                  {all.data(), ashlar::DType::u8, {bytes * world.size()}}};
  world.all_gather({&transfer, 1}, label).wait();
  return all;
}

}  // namespace train_gpt
