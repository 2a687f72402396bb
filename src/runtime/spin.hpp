// Waiting for a short time without giving up the core.
#pragma once

#include <thread>

namespace ashlar::detail {

/// Polls `ready` for some 20 microseconds, or as many times longer as `patience` says. @return what
/// it said last; the caller then sleeps.
template <typename Ready>
bool spin_until(const Ready& ready, int patience = 1) {
  static const int polls = std::thread::hardware_concurrency() > 1 ? 400 : 1;
  for (int i = 0; i < polls * patience; ++i) {
    if (ready()) return true;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  return ready();
}

}  // namespace ashlar::detail
