// Critical sections of some 30 ns: sleeping would cost a hundred times that.
#pragma once

#include <atomic>

#include "runtime/spin.hpp"

namespace ashlar::detail {

/// Spins some microseconds, then yields between tries. BasicLockable.
class SpinLock {
 public:
  void lock() noexcept {
    while (held_.exchange(true, std::memory_order_acquire))
      if (!spin_until([this] { return !held_.load(std::memory_order_relaxed); }))
        std::this_thread::yield();
  }
  void unlock() noexcept { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

}  // namespace ashlar::detail
