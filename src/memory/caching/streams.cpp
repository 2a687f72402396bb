#include "memory/caching/streams.hpp"

#include <algorithm>

namespace ashlar::detail {

StreamTable::~StreamTable() {
  for (Stream& stream : streams_)
    for (const Pending& pending : stream.pending) source_.forget(pending.event);
}

std::uint32_t StreamTable::add(StreamRef ref) {
  const std::size_t count = streams_.size() + 1;
  for (Stream& stream : streams_) stream.after.resize(count);
  Stream added;
  added.ref = ref;
  added.after.resize(count);
  streams_.push_back(std::move(added));
  return size() - 1;
}

void StreamTable::record(Stream& stream) {
  if (stream.recorded == stream.ticket || stream.completed == stream.ticket) return;
  stream.pending.push_back({stream.ticket, 0});
  try {
    stream.pending.back().event = source_.record(stream.ref);
  } catch (...) {
    stream.pending.pop_back();
    throw;
  }
  stream.recorded = stream.ticket;
  ++events_;
}

void StreamTable::poll(Stream& stream) noexcept {
  while (!stream.pending.empty() && source_.done(stream.pending.front().event)) {
    stream.completed = std::max(stream.completed, stream.pending.front().ticket);
    source_.forget(stream.pending.front().event);
    stream.pending.pop_front();
  }
}

void StreamTable::mark(std::uint32_t stream) noexcept {
  poll(streams_[stream]);
  try {
    record(streams_[stream]);
  } catch (...) {
    return;
  }
}

void StreamTable::order(std::uint32_t stream, const Block& block) {
  if (usable(block, stream)) return;
  Stream& other = streams_[block.stream];
  if (other.recorded < block.ticket) record(other);
  const auto event = std::ranges::lower_bound(other.pending, block.ticket, {}, &Pending::ticket);
  source_.order(streams_[stream].ref, event->event);
  streams_[stream].after[block.stream] = event->ticket;
  ++orderings_;
}

void StreamTable::poll_others(std::uint32_t stream) {
  for (std::uint32_t i = 0; i < size(); ++i) {
    if (i == stream) continue;
    record(streams_[i]);
    poll(streams_[i]);
  }
}

void StreamTable::wait_all() {
  for (Stream& stream : streams_) {
    record(stream);
    for (const Pending& pending : stream.pending) source_.wait(pending.event);
    poll(stream);
  }
}

void StreamTable::retire(std::uint32_t stream) noexcept {
  Stream& s = streams_[stream];
  for (const Pending& pending : s.pending) source_.forget(pending.event);
  s.pending.clear();
  s.completed = s.recorded = s.ticket;
}

}  // namespace ashlar::detail
