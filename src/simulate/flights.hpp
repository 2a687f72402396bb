// Collectives in flight: one after the other on a stream; those of two streams share the links.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ashlar::simulate {

/// Times are whole picoseconds. While the heads of both streams fly, each has half of the rate
/// (fair shares, latencies included), whatever it is of alone; so nothing is quicker than alone,
/// and all together take as long as one after the other. Shares are settled when a collective
/// starts: what starts later cannot change what a clock has passed.
class Flights {
 public:
  struct Interval {
    std::int64_t begin, end;
    bool operator==(const Interval&) const = default;
  };

  /// @param calls collectives that there are @param keep_busy whether busy() is wanted
  Flights(std::size_t calls, bool keep_busy)
      : begin_(calls, 0), end_(calls, 0), keep_busy_(keep_busy) {}

  /// The call joins the queue of its stream, 0 or 1. @param alone what it takes by itself
  /// @param now not before any instant that was asked about, nor any earlier start
  void start(int call, int stream, std::int64_t alone, std::int64_t now);

  /// Of the last start, if nothing more starts until then.
  std::int64_t begin(int call) const { return begin_[static_cast<std::size_t>(call)]; }
  std::int64_t end(int call) const { return end_[static_cast<std::size_t>(call)]; }
  /// When something flies, in order and without overlap; indices stay.
  std::span<const Interval> busy() const { return busy_; }
  /// The sum of all busy intervals.
  std::int64_t in_flight() const;

 private:
  static constexpr std::size_t kStreams = 2;
  struct Flight {
    int call;
    std::int64_t work;  // in halves of a picosecond: shares stay whole
  };
  /// How far the queues are done.
  struct Progress {
    std::int64_t time = 0;
    std::array<std::size_t, kStreams> head{};  // index into the queue
    std::array<std::int64_t, kStreams> left{};
  };

  bool flies(const Progress& at, std::size_t stream) const {
    return at.head[stream] < queues_[stream].size();
  }
  std::int64_t rate(const Progress& at) const;
  void pass(Progress& at, std::int64_t until);
  void finish(Progress& at, std::int64_t until);

  std::array<std::vector<Flight>, kStreams> queues_;
  Progress settled_;
  std::vector<std::int64_t> begin_, end_;  // by call
  std::vector<Interval> busy_;
  std::size_t settled_busy_ = 0;  // the first ones, which no start changes
  std::int64_t flown_ = 0;        // in those, and in dropped ones
  bool keep_busy_;
};

}  // namespace ashlar::simulate
