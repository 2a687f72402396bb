#include "comm/copy.hpp"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ashlar::detail {
namespace {

#if defined(__x86_64__)
// Beyond the caches, stores that bypass them save reading the target's lines: 28 GB/s per Zen 5
// core instead of memcpy's 21 with both cores busy, 32 on huge pages. Below 16 MiB they lose.
constexpr std::int64_t kStreamFrom = std::int64_t{16} << 20;
constexpr std::int64_t kLine = 64;
constexpr std::int64_t kAhead = 4096;  // a page: its translation is fetched ahead too

__attribute__((target("avx512f"))) void stream_lines(std::byte* target, const std::byte* source,
                                                     std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += 4 * kLine) {
    for (int j = 0; j < 4; ++j) __builtin_prefetch(source + i + kAhead + j * kLine);
    __m512i lines[4];
    for (int j = 0; j < 4; ++j) lines[j] = _mm512_loadu_si512(source + i + j * kLine);
    for (int j = 0; j < 4; ++j)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(target + i + j * kLine), lines[j]);
  }
  _mm_sfence();
}

bool stream(std::byte* target, const std::byte* source, std::int64_t bytes) {
  if (bytes < kStreamFrom || !__builtin_cpu_supports("avx512f")) return false;
  const std::int64_t head = (kLine - reinterpret_cast<std::intptr_t>(target) % kLine) % kLine;
  const std::int64_t body = (bytes - head) / (4 * kLine) * (4 * kLine);
  const std::int64_t tail = bytes - head - body;
  std::memcpy(target, source, static_cast<std::size_t>(head));
  stream_lines(target + head, source + head, body);
  std::memcpy(target + head + body, source + head + body, static_cast<std::size_t>(tail));
  return true;
}
#else
bool stream(std::byte*, const std::byte*, std::int64_t) { return false; }
#endif

}  // namespace

void copy_bytes(std::byte* target, const std::byte* source, std::int64_t bytes) {
  if (target == source || bytes == 0 || stream(target, source, bytes)) return;
  std::memcpy(target, source, static_cast<std::size_t>(bytes));
}

}  // namespace ashlar::detail
