// Copies and fills of the host's memory in the order of a CPU stream. On the inline stream, where a
// step's do, they allocate nothing.
#pragma once

#include <cstdint>
#include <cstring>

#include "ashlar/device.hpp"

namespace ashlar::detail {

inline void copy_on_host(void* to, const void* from, std::int64_t bytes, StreamRef stream) {
  const auto size = static_cast<std::size_t>(bytes);
  if (stream.is_inline())
    std::memcpy(to, from, size);
  else
    stream.enqueue([=] { std::memcpy(to, from, size); });
}

inline void fill_on_host(void* to, std::uint8_t value, std::int64_t bytes, StreamRef stream) {
  const auto size = static_cast<std::size_t>(bytes);
  if (stream.is_inline())
    std::memset(to, value, size);
  else
    stream.enqueue([=] { std::memset(to, value, size); });
}

}  // namespace ashlar::detail
