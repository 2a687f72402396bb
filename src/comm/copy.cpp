#include "comm/copy.hpp"

#include <cstring>

namespace ashlar::detail {

void copy_bytes(std::byte* target, const std::byte* source, std::int64_t bytes) {
  if (target != source) std::memcpy(target, source, static_cast<std::size_t>(bytes));
}

}  // namespace ashlar::detail
