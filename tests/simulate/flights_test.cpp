// Collectives that share the links, against a clock that ticks a picosecond at a time.
#include "simulate/flights.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace ashlar::simulate {
namespace {

struct Start {
  int stream;
  std::int64_t alone, now;
};

std::vector<Start> random_starts(std::mt19937& random, int streams) {
  std::vector<Start> starts;
  std::int64_t now = 0;
  for (auto n = 1 + random() % 12; n > 0; --n) {
    now += static_cast<std::int64_t>(random() % 3 == 0 ? random() % 60 : random() % 4);
    starts.push_back({static_cast<int>(random() % static_cast<unsigned>(streams)),
                      static_cast<std::int64_t>(random() % 40), now});
  }
  return starts;
}

/// Call i of starts, on one lane or on one of many.
struct Flown {
  Flights flights{3};
  std::size_t lane = 1;

  explicit Flown(const std::vector<Start>& starts) {
    for (const Start& start : starts) depart(start);
  }
  void depart(const Start& start) {
    flights.open(static_cast<int>(flights.open_calls()), start.stream, start.alone);
    flights.depart(0, start.now + 17);
    flights.depart(lane, start.now);
    flights.depart(2, start.now);
  }
  std::int64_t begin(std::size_t i) const { return flights.flight(i, lane).begin; }
  std::int64_t end(std::size_t i) const { return flights.flight(i, lane).end; }
  std::vector<Flights::Interval> busy() const {
    std::vector<Flights::Interval> all;
    for (auto next = flights.busy(lane, 0); !next.empty(); next = flights.busy(lane, next.end))
      all.push_back(next);
    return all;
  }
  std::int64_t in_flight() const {
    std::int64_t sum = 0;
    for (const Flights::Interval& interval : busy()) sum += interval.end - interval.begin;
    return sum;
  }
};

struct Ticked {
  std::vector<std::int64_t> begins, ends;
  std::int64_t in_flight = 0;
};

/// In each picosecond a lone head does two halves of its work, two heads one each.
Ticked ticked(const std::vector<Start>& starts) {
  Ticked result{std::vector<std::int64_t>(starts.size(), -1),
                std::vector<std::int64_t>(starts.size(), -1)};
  std::vector<std::int64_t> left;
  for (const Start& start : starts) left.push_back(2 * start.alone);
  const auto head = [&](int stream, std::int64_t time) {
    for (std::size_t i = 0; i < starts.size(); ++i) {
      if (starts[i].stream != stream || result.ends[i] >= 0) continue;
      if (starts[i].now > time) return -1;
      if (result.begins[i] < 0) result.begins[i] = time;
      if (left[i] > 0) return static_cast<int>(i);
      result.ends[i] = time;
    }
    return -1;
  };
  for (std::int64_t time = 0; std::ranges::count(result.ends, -1) > 0; ++time) {
    const int heads[] = {head(0, time), head(1, time)};
    const int flying = static_cast<int>(std::ranges::count_if(heads, [](int h) { return h >= 0; }));
    result.in_flight += flying > 0 ? 1 : 0;
    for (const int h : heads)
      if (h >= 0) left[static_cast<std::size_t>(h)] -= 3 - flying;
  }
  return result;
}

}  // namespace

TEST_CASE("flights: two that start together take twice as long while both fly") {
  const Flown both({{0, 10, 0}, {1, 6, 0}});
  CHECK(both.end(1) == 12);
  CHECK(both.end(0) == 16);
  const Flown later({{0, 10, 0}, {1, 6, 4}});
  CHECK(later.end(0) == 16);
  CHECK(later.end(1) == 16);
  CHECK(later.begin(1) == 4);
  CHECK(later.in_flight() == 16);
}

TEST_CASE("flights: as a clock that ticks says, on one stream and on two") {
  std::mt19937 random(31);
  for (int trial = 0; trial < 3000; ++trial) {
    const auto starts = random_starts(random, 1 + trial % 2);
    const Flown flown(starts);
    const Ticked expected = ticked(starts);
    bool same = flown.in_flight() == expected.in_flight;
    for (std::size_t i = 0; i < starts.size(); ++i)
      same = same && flown.begin(i) == expected.begins[i] && flown.end(i) == expected.ends[i];
    REQUIRE(same);
  }
}

TEST_CASE("flights: a call that all lanes have waited for is forgotten without a trace") {
  std::mt19937 random(34);
  for (int trial = 0; trial < 1000; ++trial) {
    auto starts = random_starts(random, 2);
    const Flown kept(starts);
    const Start last = starts.back();
    starts.pop_back();
    Flown flown(starts);
    std::vector<std::size_t> left;
    for (std::size_t i = starts.size(); i-- > 0;) {
      if (flown.end(i) + 17 <= last.now)
        flown.flights.close(i);
      else
        left.insert(left.begin(), i);
    }
    left.push_back(starts.size());
    flown.flights.open(99, last.stream, last.alone);
    flown.flights.depart(flown.lane, last.now);
    CHECK(flown.flights.find(99) + 1 == flown.flights.open_calls());
    bool same = true;
    for (std::size_t i = 0; i < left.size(); ++i)
      same = same && flown.begin(i) == kept.begin(left[i]) && flown.end(i) == kept.end(left[i]);
    REQUIRE(same);
  }
}

TEST_CASE("flights: sharing is never quicker than a stream by itself, one at a time unchanged") {
  std::mt19937 random(32);
  for (int trial = 0; trial < 500; ++trial) {
    const auto starts = random_starts(random, 2);
    const Flown shared(starts);
    std::int64_t free[] = {0, 0}, last = 0, serial = 0, sum = 0;
    bool apart = true;  // so far: each starts when all before are done
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const auto& [stream, alone, now] = starts[i];
      free[stream] = std::max(free[stream], now) + alone;
      CHECK(shared.end(i) >= free[stream]);
      apart = apart && serial <= now;
      serial = std::max(serial, now) + alone;
      sum += alone;
      last = std::max(last, shared.end(i));
    }
    if (apart) CHECK(last == serial);
    const auto rounding = static_cast<std::int64_t>(starts.size());
    CHECK(last >= serial);  // the links do no more than they can
    CHECK(last <= serial + rounding);
    CHECK(shared.in_flight() >= sum);
    CHECK(shared.in_flight() <= sum + rounding);
  }
}

TEST_CASE("flights: what one stream waits for does not hold up the other") {
  Flown flown({{0, 10, 50}, {1, 6, 4}});
  CHECK(flown.end(1) == 10);
  CHECK(flown.begin(0) == 50);
  CHECK(flown.end(0) == 60);
  CHECK(flown.flights.last_of(0) == 0);
  flown.flights.close(1);
  CHECK(flown.flights.last_of(1) == flown.flights.open_calls());
  flown.depart({1, 6, 55});  // shares the last 5 of call 0
  CHECK(flown.end(0) == 65);
  CHECK(flown.end(1) == 66);
}

TEST_CASE("flights: busy intervals are in order and apart") {
  std::mt19937 random(33);
  for (int trial = 0; trial < 500; ++trial) {
    std::int64_t end = 0;
    for (const Flights::Interval& interval : Flown(random_starts(random, 2)).busy()) {
      CHECK(interval.begin < interval.end);
      CHECK(end <= interval.begin);
      end = interval.end;
    }
  }
}

}  // namespace ashlar::simulate
