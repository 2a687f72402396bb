// A doorbell wakes one sleeping thread, of this process or of another that maps the same memory.
// The sleeper listens, looks at what it waits for, and sleeps only if nobody has rung since it
// listened.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace ashlar::detail {

class Doorbell {
 public:
  std::uint32_t listen() const { return rings_.load(); }
  /// Returns when rung after `heard` was listened to, when `limit` has passed, or sooner.
  void sleep(std::uint32_t heard, std::chrono::microseconds limit);
  void ring();

 private:
  std::atomic<std::uint32_t> rings_{0};
  std::atomic<std::uint32_t> sleeping_{0};
};

}  // namespace ashlar::detail
