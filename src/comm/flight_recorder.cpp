#include "comm/flight_recorder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace ashlar::detail {

std::string describe(const Record& record) {
  static constexpr std::array<std::string_view, 4> states = {"queued", "running", "done", "failed"};
  return fmt::format("#{} {}: {}", record.header.sequence, describe(record.header),
                     states[static_cast<std::size_t>(record.state)]);
}

std::size_t FlightRecorder::queue(const Header& header) {
  const std::scoped_lock lock(mutex_);
  Record& record = ring_[count_ % kCapacity];
  record = Record{};
  record.header = header;
  record.queued = ++clock_;
  return count_++;
}

void FlightRecorder::start(std::size_t index) {
  const std::scoped_lock lock(mutex_);
  if (index + kCapacity < count_) return;  // overwritten: the queue was longer than the recorder
  ring_[index % kCapacity].state = Record::State::running;
  ring_[index % kCapacity].started = ++clock_;
}

void FlightRecorder::end(std::size_t index, bool failed) {
  const std::scoped_lock lock(mutex_);
  if (index + kCapacity < count_) return;
  ring_[index % kCapacity].state = failed ? Record::State::failed : Record::State::done;
  ring_[index % kCapacity].ended = ++clock_;
}

std::vector<Record> FlightRecorder::records() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Record> records;
  for (std::size_t i = count_ - std::min(count_, kCapacity); i < count_; ++i)
    records.push_back(ring_[i % kCapacity]);
  return records;
}

}  // namespace ashlar::detail
