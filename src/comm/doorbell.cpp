#include "comm/doorbell.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>

namespace ashlar::detail {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

void Doorbell::sleep(std::uint32_t heard, std::chrono::microseconds limit) {
  const timespec duration{limit.count() / 1'000'000, limit.count() % 1'000'000 * 1'000};
  sleeping_.fetch_add(1);
  if (rings_.load() == heard)
    ::syscall(SYS_futex, &rings_, FUTEX_WAIT, heard, &duration, nullptr, 0);
  sleeping_.fetch_sub(1);
}

void Doorbell::ring() {
  rings_.fetch_add(1);
  if (sleeping_.load() != 0)
    ::syscall(SYS_futex, &rings_, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace ashlar::detail
