// Collectives in flight, on the links of each of many ranks: one after the other on a stream; those
// of two streams share the links.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ashlar::simulate {

/// Times are whole picoseconds. While calls of both streams fly, each has half of the rate (fair
/// shares, latencies included), whatever it is of alone; so nothing is quicker than alone, and all
/// together take as long as one after the other. Shares are settled when a collective is ready:
/// what becomes ready later cannot change what a clock has passed. A lane is a rank, or several
/// that meet in all collectives; each lane has its own times, all have the same calls.
class Flights {
 public:
  struct Interval {
    std::int64_t begin, end;
    bool empty() const { return begin >= end; }
  };

  explicit Flights(std::size_t lanes) : lanes_(lanes) {}

  /// A call that joins the queue of its stream, 0 or 1, in every lane; depart() follows for each.
  /// @param call no open one's @param alone what it takes by itself
  void open(int call, int stream, std::int64_t alone);
  /// The last call opened. @param ready when it can begin, if its queue is done: not before any
  /// instant that was asked about
  void depart(std::size_t lane, std::int64_t ready);
  /// Where a call is among the open ones, or their number.
  std::size_t find(int call) const;
  std::size_t open_calls() const { return open_.size(); }
  /// Forgets a call that every lane has waited for. @param at its place
  void close(std::size_t at);

  /// Of the open call in that place, if nothing more departs until then.
  Interval flight(std::size_t at, std::size_t lane) const {
    const Leg& leg = open_[at].legs[lane];
    return {leg.begin, leg.end()};
  }
  /// The place of the last call in a stream's queue: when it ends, the queue is done; or
  /// open_calls(): it is done.
  std::size_t last_of(int stream) const;
  /// The first time after `now` in which one of the open calls flies, until an end of one; empty:
  /// none does.
  Interval busy(std::size_t lane, std::int64_t now) const {
    Interval first{kNever, kNever};
    for (const Call& call : open_) {
      const Leg& leg = call.legs[lane];
      const std::int64_t begin = leg.begin > now ? leg.begin : now, end = leg.end();
      if (begin < end && begin < first.begin) first = {begin, end};
    }
    return first;
  }

 private:
  static constexpr std::int64_t kNever = INT64_MAX;
  static constexpr std::size_t kNone = SIZE_MAX;

  /// A call's times in a lane. Halves of a picosecond, for what an odd share leaves.
  struct Leg {
    std::int64_t ready = 0, begin = 0;
    std::int64_t twice_end = 0;
    std::int64_t end() const { return (twice_end + 1) / 2; }
  };
  struct Call {
    int call, stream;
    std::int64_t alone;
    std::vector<Leg> legs;  // by lane
  };

  void share(std::size_t lane, Leg& leg);

  std::size_t lanes_;
  std::vector<Call> open_;               // in the order of opening
  std::size_t after_ = kNone;            // the place of what the last opened queues behind
  bool shares_ = false;                  // another stream's calls are beside it
  std::vector<std::vector<Leg>> spare_;  // of closed calls
};

}  // namespace ashlar::simulate
