// The half of a PageSource that is about events, by the handles of ashlar/device.hpp.
#pragma once

#include <exception>
#include <unordered_map>

#include "ashlar/caching_resource.hpp"

namespace ashlar::detail {

class EventedPages : public PageSource {
 public:
  EventId record(StreamRef stream) override {
    events_.emplace(++last_, stream.record());
    return last_;
  }
  /// A stream that has failed is done with nothing; order() and record() say what happened.
  bool done(EventId event) noexcept override {
    try {
      return events_.at(event).done();
    } catch (const std::exception&) {
      return false;
    }
  }
  void order(StreamRef stream, EventId event) override { stream.wait(events_.at(event)); }
  void wait(EventId event) noexcept override {
    try {
      events_.at(event).wait();
    } catch (const std::exception&) {  // done() stays false
    }
  }
  void forget(EventId event) noexcept override { events_.erase(event); }

 private:
  std::unordered_map<EventId, Event> events_;
  EventId last_ = 0;
};

}  // namespace ashlar::detail
