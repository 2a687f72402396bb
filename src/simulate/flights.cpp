#include "simulate/flights.hpp"

#include <algorithm>
#include <utility>

namespace ashlar::simulate {

std::size_t Flights::find(int call) const {
  const auto found = std::ranges::find(open_, call, &Call::call);
  return static_cast<std::size_t>(found - open_.begin());
}

void Flights::open(int call, int stream, std::int64_t alone) {
  if (spare_.empty()) spare_.emplace_back(lanes_);
  const std::size_t before = last_of(stream);
  after_ = before < open_.size() ? before : kNone;
  shares_ = last_of(1 - stream) < open_.size();
  open_.push_back({call, stream, alone, std::move(spare_.back())});
  spare_.pop_back();
}

void Flights::close(std::size_t at) {
  spare_.push_back(std::move(open_[at].legs));
  open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(at));
}

std::size_t Flights::last_of(int stream) const {
  for (std::size_t i = open_.size(); i-- > 0;)
    if (open_[i].stream == stream) return i;
  return open_.size();
}

void Flights::depart(std::size_t lane, std::int64_t ready) {
  const Call& call = open_.back();
  Leg& leg = open_.back().legs[lane];
  leg = {ready, ready, 0};
  if (after_ != kNone) leg.begin = std::max(ready, open_[after_].legs[lane].end());
  leg.twice_end = 2 * (leg.begin + call.alone);
  if (shares_) share(lane, leg);
}

/// The last call opened takes its part of the links from those of the other stream. From its begin
/// on, nothing else flies on its own stream: without it, the others would fly alone.
void Flights::share(std::size_t lane, Leg& leg) {
  const Call& call = open_.back();
  std::int64_t work = 2 * call.alone;  // left: 2 of it are done in a picosecond alone, else 1
  std::int64_t now = leg.begin;        // work is done until then
  std::int64_t free = 0;               // when the other stream's queue moves on
  for (Call& beside : open_) {
    if (beside.stream == call.stream) continue;
    Leg& other = beside.legs[lane];
    if (other.end() <= leg.begin) continue;
    std::int64_t left = other.twice_end - 2 * std::max(other.begin, leg.begin);
    if (other.begin > leg.begin) other.begin = std::max(other.ready, free);
    const std::int64_t meet = std::max(other.begin, leg.begin);
    const std::int64_t alone = std::min(work, 2 * (meet - now));
    work -= alone;
    if (alone > 0) leg.twice_end = 2 * now + alone;
    const std::int64_t both = std::min(work, left);
    if (both > 0) leg.twice_end = 2 * (meet + both);
    work -= both;
    left -= both;
    now = meet + both;
    other.twice_end = 2 * now + left;
    free = other.end();
    now = free;
  }
  if (work > 0) leg.twice_end = 2 * now + work;
}

}  // namespace ashlar::simulate
