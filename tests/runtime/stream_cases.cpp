#include "runtime/stream_cases.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "ashlar/error.hpp"

using namespace ashlar;
using ashlar::test::device_of_streams;

TEST_CASE("stream: work runs in order, away from the caller") {
  std::vector<int> order;
  bool on_caller = false;
  const std::thread::id caller = std::this_thread::get_id();
  const Stream stream(device_of_streams());
  const StreamRef ref = stream;
  CHECK_FALSE(ref.is_inline());
  CHECK(ref.device() == device_of_streams());
  for (int i = 0; i < 1000; ++i)
    ref.enqueue([&, i] {
      order.push_back(i);
      on_caller = on_caller || std::this_thread::get_id() == caller;
    });
  ref.synchronize();
  CHECK_FALSE(on_caller);
  REQUIRE(order.size() == 1000);
  for (int i = 0; i < 1000; ++i) REQUIRE(order[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("stream: destruction drains the queue") {
  int done = 0;
  {
    const Stream stream(device_of_streams());
    StreamRef(stream).enqueue([] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); });
    for (int i = 0; i < 100; ++i) StreamRef(stream).enqueue([&] { ++done; });
  }
  CHECK(done == 100);
}

TEST_CASE("stream: a handle stays valid when the owner moves") {
  Stream first(device_of_streams());
  const StreamRef ref = first;
  const Stream second = std::move(first);
  int value = 0;
  ref.enqueue([&] { value = 1; });
  StreamRef(second).synchronize();
  CHECK(value == 1);
}

TEST_CASE("stream: synchronize throws what was thrown first, once; later work still runs") {
  const Stream stream(device_of_streams());
  const StreamRef ref = stream;
  bool later = false;
  ref.enqueue([] { throw InvalidArgument("first"); });
  ref.enqueue([] { throw std::runtime_error("second"); });
  ref.enqueue([&] { later = true; });
  CHECK_THROWS_WITH_AS(ref.synchronize(), "first", InvalidArgument);
  CHECK(later);
  ref.synchronize();
}

TEST_CASE("stream: an event after failed work still happens") {
  const Stream stream(device_of_streams());
  const StreamRef ref = stream;
  ref.enqueue([] { throw std::runtime_error("lost"); });
  const Event event = ref.record();
  event.wait();
  CHECK(event.done());
  CHECK_THROWS_AS(ref.synchronize(), std::runtime_error);
}

TEST_CASE("event: not done before its work is, done after; copies share the point") {
  CHECK(Event().done());
  Event().wait();
  const Stream stream(device_of_streams());
  const StreamRef ref = stream;
  std::atomic<bool> go{false};
  ref.enqueue([&] {
    while (!go) std::this_thread::yield();
  });
  const Event event = ref.record();
  const Event copy = event;
  CHECK_FALSE(event.done());
  CHECK_FALSE(copy.done());
  go = true;
  copy.wait();
  CHECK(event.done());
}

TEST_CASE("event: a stream waits for another stream, and unsynchronized data is then visible") {
  const Stream producer(device_of_streams());
  const Stream consumer(device_of_streams());
  int shared = 0;
  std::vector<int> seen;
  for (int i = 1; i <= 200; ++i) {
    StreamRef(producer).enqueue([&shared, i] {
      if (i % 50 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      shared = i;
    });
    const Event written = StreamRef(producer).record();
    StreamRef(consumer).wait(written);
    StreamRef(consumer).enqueue([&shared, &seen] { seen.push_back(shared); });
    StreamRef(producer).wait(StreamRef(consumer).record());
  }
  StreamRef(consumer).synchronize();
  StreamRef(producer).synchronize();
  REQUIRE(seen.size() == 200);
  for (int i = 1; i <= 200; ++i) REQUIRE(seen[static_cast<std::size_t>(i - 1)] == i);
}

TEST_CASE("event: the inline stream waits on the caller") {
  const Stream stream(device_of_streams());
  int value = 0;
  StreamRef(stream).enqueue([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    value = 7;
  });
  StreamRef().wait(StreamRef(stream).record());
  CHECK(value == 7);
}

TEST_CASE("event: many threads may wait for one event") {
  const Stream stream(device_of_streams());
  int value = 0;
  StreamRef(stream).enqueue([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    value = 3;
  });
  const Event event = StreamRef(stream).record();
  std::atomic<int> sum{0};
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i)
    waiters.emplace_back([&] {
      event.wait();
      sum += value;
    });
  for (std::thread& waiter : waiters) waiter.join();
  CHECK(sum == 12);
}
