// CRC-32C (Castagnoli; RFC 3720, section B.4), by the processor's instruction where it has one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ashlar {

/// The checksum of bytes that follow others whose checksum is `previous`.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t previous = 0);

}  // namespace ashlar
