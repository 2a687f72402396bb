// What the operations of one NCCL communicator share: its rank, its patience, its recorder, and why
// it has failed.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "comm/flight_recorder.hpp"

namespace ashlar::cuda {

class NcclHealth {
 public:
  NcclHealth(int rank, std::chrono::milliseconds timeout)
      : rank_(rank), timeout_ms_(timeout.count()) {}

  int rank() const { return rank_; }
  std::chrono::milliseconds timeout() const {
    return std::chrono::milliseconds(timeout_ms_.load());
  }
  void set_timeout(std::chrono::milliseconds timeout) { timeout_ms_ = timeout.count(); }
  detail::FlightRecorder& recorder() { return recorder_; }

  /// The first reason stays.
  void fail(std::string_view reason) noexcept {
    const std::scoped_lock lock(mutex_);
    if (failed_) return;
    reason_ = reason;
    drained_by_ = std::chrono::steady_clock::now() + timeout();
    failed_ = true;
  }
  bool failed() const { return failed_; }
  /// Empty while all is well.
  std::string reason() const {
    const std::scoped_lock lock(mutex_);
    return reason_;
  }
  /// After a failure: when nothing of the group is waited for on the device any more.
  std::chrono::steady_clock::time_point drained_by() const {
    const std::scoped_lock lock(mutex_);
    return drained_by_;
  }
  /// What is said when time is up; NCCL does not tell which rank is missing.
  std::string late() const;

 private:
  int rank_;
  std::atomic<std::int64_t> timeout_ms_;
  std::atomic<bool> failed_ = false;
  mutable std::mutex mutex_;
  std::string reason_;
  std::chrono::steady_clock::time_point drained_by_;
  detail::FlightRecorder recorder_;
};

}  // namespace ashlar::cuda
