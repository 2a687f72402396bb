// Memory of a collective in flight may not go before the collective has ended.
#pragma once

#include <exception>
#include <initializer_list>

#include "ashlar/communicator.hpp"

namespace ashlar::detail {

/// Waits, for destructors: whatever went wrong has been or will be reported elsewhere.
inline void settle(Work& work) noexcept {
  try {
    work.wait();
  } catch (const std::exception&) {
  }
}

/// Waits for all. Where an exception unwinds the stack the other ranks are told first, who may
/// never come to these collectives.
/// @param communicators theirs; null ones are passed over
/// @param work_of(item) of each of `items`
template <typename Items, typename WorkOf>
void settle_all(std::initializer_list<Communicator*> communicators, Items& items,
                const WorkOf& work_of) noexcept {
  bool told = std::uncaught_exceptions() == 0;
  for (auto& item : items) {
    Work& work = work_of(item);
    if (!told && !work.done()) {
      for (Communicator* const communicator : communicators)
        if (communicator != nullptr)
          communicator->abort("an exception ended this rank's step with collectives in flight");
      told = true;
    }
    settle(work);
  }
}

}  // namespace ashlar::detail
