// What the kernel grants this process: the machine's memory, and the limits that control groups of
// either version set on memory and cores, from the process's own group up to the outermost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>

namespace ashlar::detail {

inline constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

/// All functions: @param root "/" but in tests, where it holds a proc/ and a sys/ of their own.

/// Bytes that can be taken now: the least of MemAvailable and, for each group, its limit less its
/// usage, file cache that can be dropped not counted. kNoLimit where nothing says.
std::int64_t available_bytes(const std::filesystem::path& root);

/// The smallest memory limit of the groups; kNoLimit where there is none.
std::int64_t memory_limit(const std::filesystem::path& root);

/// Cores' worth of time that the groups grant (cpu.max): 1.5 is three halves of a core. Infinite
/// where there is no quota.
double core_quota(const std::filesystem::path& root);

}  // namespace ashlar::detail
