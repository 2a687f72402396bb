// Time that a stream spends in each of several sections, measured where its work runs.
#pragma once

#include <chrono>

#include "ashlar/device.hpp"

namespace ashlar {

class StreamClock {
 public:
  /// What is enqueued from here on counts for `section`: seconds, added to when the next one
  /// begins. Null: for none.
  void enter(StreamRef stream, double* section) {
    if (section == entered_) return;
    entered_ = section;
    stream.enqueue([this, section] {
      const auto now = std::chrono::steady_clock::now();
      if (running_ != nullptr) *running_ += std::chrono::duration<double>(now - since_).count();
      running_ = section;
      since_ = now;
    });
  }

 private:
  double* entered_ = nullptr;  // as issued
  double* running_ = nullptr;  // as run
  std::chrono::steady_clock::time_point since_;
};

}  // namespace ashlar
