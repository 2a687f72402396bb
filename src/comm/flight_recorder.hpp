// The last operations of a communicator, with stamps that order their starts and ends: what ran
// when something hangs, and what a test of overlap reads.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "comm/operation.hpp"

namespace ashlar::detail {

struct Record {
  enum class State : std::uint8_t { queued, running, done, failed };
  Header header;
  State state = State::queued;
  /// One clock per communicator, counting from 1; 0 while it has not happened.
  std::int64_t queued = 0;
  std::int64_t started = 0;
  std::int64_t ended = 0;
};
/// "#41 reduce_scatter h.3 589824 x bf16: done".
std::string describe(const Record& record);

class FlightRecorder {
 public:
  static constexpr std::size_t kCapacity = 256;

  std::size_t queue(const Header& header);
  void start(std::size_t index);
  void end(std::size_t index, bool failed);
  /// Oldest first.
  std::vector<Record> records() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Record> ring_ = std::vector<Record>(kCapacity);
  std::size_t count_ = 0;
  std::int64_t clock_ = 0;
};

}  // namespace ashlar::detail
