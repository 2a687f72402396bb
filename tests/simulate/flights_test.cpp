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

Flights flown(const std::vector<Start>& starts, bool keep_busy = true) {
  Flights flights(starts.size(), keep_busy);
  for (std::size_t i = 0; i < starts.size(); ++i)
    flights.start(static_cast<int>(i), starts[i].stream, starts[i].alone, starts[i].now);
  return flights;
}

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
  const Flights both = flown({{0, 10, 0}, {1, 6, 0}});
  CHECK(both.end(1) == 12);
  CHECK(both.end(0) == 16);
  const Flights later = flown({{0, 10, 0}, {1, 6, 4}});
  CHECK(later.end(0) == 16);
  CHECK(later.end(1) == 16);
  CHECK(later.begin(1) == 4);
  CHECK(later.in_flight() == 16);
}

TEST_CASE("flights: as a clock that ticks says, on one stream and on two") {
  std::mt19937 random(31);
  for (int trial = 0; trial < 3000; ++trial) {
    const auto starts = random_starts(random, 1 + trial % 2);
    const Flights flights = flown(starts);
    const Ticked expected = ticked(starts);
    bool same = flights.in_flight() == expected.in_flight;
    for (std::size_t i = 0; i < starts.size(); ++i)
      same = same && flights.begin(static_cast<int>(i)) == expected.begins[i] &&
             flights.end(static_cast<int>(i)) == expected.ends[i];
    REQUIRE(same);
    CHECK(flown(starts, false).in_flight() == expected.in_flight);
  }
}

TEST_CASE("flights: sharing is never quicker than a stream by itself, one at a time unchanged") {
  std::mt19937 random(32);
  for (int trial = 0; trial < 500; ++trial) {
    const auto starts = random_starts(random, 2);
    const Flights shared = flown(starts);
    std::int64_t free[] = {0, 0}, last = 0, serial = 0;
    bool apart = true;  // so far: each starts when all before are done
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const auto& [stream, alone, now] = starts[i];
      free[stream] = std::max(free[stream], now) + alone;
      CHECK(shared.end(static_cast<int>(i)) >= free[stream]);
      apart = apart && serial <= now;
      serial = std::max(serial, now) + alone;
      last = std::max(last, shared.end(static_cast<int>(i)));
    }
    if (apart) CHECK(last == serial);
    CHECK(last >= serial);  // the links do no more than they can
    CHECK(last <= serial + static_cast<std::int64_t>(starts.size()));  // nor less, but for rounding
  }
}

TEST_CASE("flights: busy intervals are in order, apart, and keep their places") {
  std::mt19937 random(33);
  for (int trial = 0; trial < 500; ++trial) {
    const auto starts = random_starts(random, 2);
    Flights flights(starts.size(), true);
    std::vector<Flights::Interval> before;
    for (std::size_t i = 0; i < starts.size(); ++i) {
      flights.start(static_cast<int>(i), starts[i].stream, starts[i].alone, starts[i].now);
      const std::vector<Flights::Interval> busy(flights.busy().begin(), flights.busy().end());
      std::int64_t sum = 0;
      for (std::size_t k = 0; k < busy.size(); ++k) {
        CHECK(busy[k].begin < busy[k].end);
        if (k > 0) CHECK(busy[k - 1].end <= busy[k].begin);
        sum += busy[k].end - busy[k].begin;
      }
      CHECK(sum == flights.in_flight());
      for (std::size_t k = 0; k < before.size() && before[k].end <= starts[i].now; ++k)
        CHECK(busy[k] == before[k]);
      before = busy;
    }
  }
}

}  // namespace ashlar::simulate
