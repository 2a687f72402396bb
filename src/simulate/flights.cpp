#include "simulate/flights.hpp"

#include <algorithm>
#include <limits>

namespace ashlar::simulate {

/// Halves of a picosecond of work that a head does in a picosecond; 0: none flies.
std::int64_t Flights::rate(const Progress& at) const {
  const int flying = (flies(at, 0) ? 1 : 0) + (flies(at, 1) ? 1 : 0);
  return flying == 0 ? 0 : 3 - flying;
}

/// To an instant before which no head ends.
void Flights::pass(Progress& at, std::int64_t until) {
  const std::int64_t done = (until - at.time) * rate(at);
  if (done > 0) busy_.push_back({at.time, until});
  for (std::size_t s = 0; s < kStreams; ++s) {
    if (!flies(at, s)) continue;
    at.left[s] -= done;
    if (at.left[s] > 0) continue;
    end_[static_cast<std::size_t>(queues_[s][at.head[s]].call)] = until;
    if (++at.head[s] == queues_[s].size()) continue;
    const Flight& next = queues_[s][at.head[s]];
    at.left[s] = next.work;
    begin_[static_cast<std::size_t>(next.call)] = until;
  }
  at.time = until;
}

/// All that ends by `until`, one end after the other.
void Flights::finish(Progress& at, std::int64_t until) {
  for (std::int64_t speed = rate(at); speed > 0; speed = rate(at)) {
    std::int64_t next = std::numeric_limits<std::int64_t>::max();
    for (std::size_t s = 0; s < kStreams; ++s)
      if (flies(at, s)) next = std::min(next, at.time + (at.left[s] + speed - 1) / speed);
    if (next > until) return;
    pass(at, next);
  }
}

void Flights::start(int call, int stream, std::int64_t alone, std::int64_t now) {
  const auto s = static_cast<std::size_t>(stream);
  busy_.resize(settled_busy_);
  finish(settled_, now);
  if (!flies(settled_, s)) {
    pass(settled_, now);
    queues_[s].clear();
    settled_.head[s] = 0;
    settled_.left[s] = 2 * alone;
    begin_[static_cast<std::size_t>(call)] = now;
  }
  queues_[s].push_back({call, 2 * alone});
  for (std::size_t i = settled_busy_; i < busy_.size(); ++i)
    flown_ += busy_[i].end - busy_[i].begin;
  if (!keep_busy_) busy_.clear();
  settled_busy_ = busy_.size();
  Progress ahead = settled_;
  finish(ahead, std::numeric_limits<std::int64_t>::max());
}

std::int64_t Flights::in_flight() const {
  std::int64_t sum = flown_;
  for (std::size_t i = settled_busy_; i < busy_.size(); ++i) sum += busy_[i].end - busy_[i].begin;
  return sum;
}

}  // namespace ashlar::simulate
