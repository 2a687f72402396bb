// What a launch may ask for, checked alike for a GPU and for the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

#include "ashlar/device.hpp"

namespace ashlar::cuda {

inline constexpr unsigned kBlockThreads = 1024;
inline constexpr unsigned kBlockDepth = 64;
inline constexpr unsigned kGridWidth = 0x7fffffff;
inline constexpr unsigned kGridHeight = 65535;
inline constexpr std::size_t kStaticSharedBytes = 16 << 10;    // of our own, CUDA has 48 KiB
inline constexpr std::size_t kDefaultSharedBytes = 32 << 10;   // dynamic; more has to be asked for
inline constexpr std::size_t kLargestSharedBytes = 227 << 10;  // static and dynamic, sm_90

/// A stream and the line that launches on it; made from a stream where one is passed.
struct LaunchSite {
  template <typename Stream>
  LaunchSite(const Stream& stream_,  // NOLINT(google-explicit-constructor)
             std::source_location at_ = std::source_location::current())
      : stream(stream_), at(at_) {}

  StreamRef stream;
  std::source_location at;
};

/// Three extents, of a grid or a block.
struct Extents {
  unsigned x, y, z;
  std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

/// @throws InvalidArgument naming the line of the launch if it exceeds what every GPU since sm_80
/// takes (blocks of 1024 threads, 65535 blocks in y and z, 227 KiB of shared memory) or is empty.
void validate_launch(Extents grid, Extents block, std::size_t shared_bytes,
                     std::source_location at);

}  // namespace ashlar::cuda
