// Workspaces of NVIDIA's libraries.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ashlar::cuda {

/// The libraries want addresses at multiples of 256, the planner's are multiples of 64.
inline constexpr std::int64_t kLibraryAlignment = 256;

/// The first such address from `pointer` on.
inline std::byte* aligned_up(std::byte* pointer) {
  constexpr auto kUnit = static_cast<std::uintptr_t>(kLibraryAlignment);
  return pointer + (kUnit - reinterpret_cast<std::uintptr_t>(pointer) % kUnit) % kUnit;
}

}  // namespace ashlar::cuda
