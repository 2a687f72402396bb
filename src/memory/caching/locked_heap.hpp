// The heap and the lock that guards it.
#pragma once

#include <utility>

#include "memory/caching/heap.hpp"
#include "memory/caching/spin_lock.hpp"

namespace ashlar::detail {

struct LockedHeap {
  LockedHeap(PageSource& source, CachingOptions options) : heap(source, std::move(options)) {}

  SpinLock mutex;
  CachingHeap heap;
};

}  // namespace ashlar::detail
