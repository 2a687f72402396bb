// The half of a PageSource that is about events, by the handles of ashlar/device.hpp.
#pragma once

#include <unordered_map>

#include "ashlar/caching_resource.hpp"

namespace ashlar::detail {

class EventedPages : public PageSource {
 public:
  EventId record(StreamRef stream) override {
    events_.emplace(++last_, stream.record());
    return last_;
  }
  bool done(EventId event) noexcept override { return events_.at(event).done(); }
  void order(StreamRef stream, EventId event) override { stream.wait(events_.at(event)); }
  void wait(EventId event) noexcept override { events_.at(event).wait(); }
  void forget(EventId event) noexcept override { events_.erase(event); }

 private:
  std::unordered_map<EventId, Event> events_;
  EventId last_ = 0;
};

}  // namespace ashlar::detail
