// Copies between ranks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ashlar::detail {

/// Copies `bytes`; the ranges are equal (then nothing happens) or do not overlap.
void copy_bytes(std::byte* target, const std::byte* source, std::int64_t bytes);

}  // namespace ashlar::detail
