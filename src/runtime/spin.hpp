// Waiting for a short time without giving up the core.
#pragma once

#include <thread>

namespace ashlar::detail {

/// Polls `ready` for some 20 microseconds. @return what it said last; the caller then sleeps.
template <typename Ready>
bool spin_until(const Ready& ready) {
  static const int polls = std::thread::hardware_concurrency() > 1 ? 400 : 1;
  for (int i = 0; i < polls; ++i) {
    if (ready()) return true;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  return ready();
}

}  // namespace ashlar::detail
