// A device without hardware: streams whose work runs when the test says so, in any order that
// events allow, on memory that knows which of its pages are mapped. Work that meets another's bytes
// counts as a violation.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "ashlar/caching_resource.hpp"
#include "ashlar/error.hpp"

class FakeDevice final : public ashlar::PageSource {
 public:
  static constexpr std::int64_t kPage = 64 << 10;

  explicit FakeDevice(int streams, std::int64_t capacity = INT64_MAX)
      : queues_(static_cast<std::size_t>(streams)), capacity_(capacity) {}
  ~FakeDevice() override {
    for (const auto& [begin, bytes] : reservations_)
      ::munmap(begin, static_cast<std::size_t>(bytes));
  }

  ashlar::StreamRef stream(int i) {
    return ashlar::StreamRef(
        reinterpret_cast<ashlar::detail::StreamState*>(&queues_[static_cast<std::size_t>(i)]));
  }

  // What a test does with the device.
  void write(ashlar::StreamRef stream, void* at, std::int64_t bytes, std::uint8_t value) {
    enqueue(stream, [=, this] {
      touch(at, bytes, [&](std::uint8_t& byte) { byte = value; });
      return true;
    });
  }
  void expect(ashlar::StreamRef stream, void* at, std::int64_t bytes, std::uint8_t value) {
    enqueue(stream, [=, this] {
      touch(at, bytes, [&](const std::uint8_t& byte) { violations += byte != value; });
      return true;
    });
  }
  /// `later` runs what follows after all that is enqueued on `earlier`.
  void join(ashlar::StreamRef later, ashlar::StreamRef earlier) {
    push_wait(later, push_record(earlier));
  }
  /// One piece of work of one stream, if that stream is not waiting.
  void step(std::mt19937& random) { run_one(random() % queues_.size()); }
  /// All that one stream can do while the others stand still.
  void run(int stream) {
    while (run_one(static_cast<std::size_t>(stream))) {
    }
  }
  void drain() {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t i = 0; i < queues_.size(); ++i)
        while (run_one(i)) moved = true;
    }
  }

  // What a test looks at and sets.
  int violations = 0;
  std::int64_t mapped = 0;
  std::int64_t calls = 0;     // that may fail
  std::int64_t failing = -1;  // number of the call that fails, from 0
  std::int64_t orders = 0;
  std::int64_t ignored_order = -1;  // number of the order that is lost, from 0
  bool early_events = false;        // done() lies
  std::int64_t waits = 0;
  std::size_t reservations() const { return reservations_.size(); }
  std::size_t events() const { return events_.size(); }

  // PageSource.
  std::int64_t page_bytes() const override { return kPage; }
  std::byte* reserve(std::int64_t bytes) override {
    if (fails() || bytes > (std::int64_t{1} << 40)) return nullptr;
    void* raw = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) return nullptr;
    reservations_[static_cast<std::byte*>(raw)] = bytes;
    return static_cast<std::byte*>(raw);
  }
  void release(std::byte* begin, std::int64_t bytes) noexcept override {
    violations += reservations_.at(begin) != bytes;
    for (std::int64_t at = 0; at < bytes && !pages_.empty(); at += kPage)
      violations += pages_.contains(begin + at);
    ::munmap(begin, static_cast<std::size_t>(bytes));
    reservations_.erase(begin);
  }
  bool map(std::byte* begin, std::int64_t bytes) override {
    if (fails() || bytes > capacity_ - mapped) return false;
    violations += bytes <= 0 || bytes % kPage != 0;
    for (std::int64_t at = 0; at < bytes; at += kPage)
      violations += !pages_.emplace(begin + at, 0).second;
    mapped += bytes;
    return true;
  }
  void unmap(std::byte* begin, std::int64_t bytes) noexcept override {
    for (std::int64_t at = 0; at < bytes; at += kPage) violations += pages_.erase(begin + at) != 1;
    mapped -= bytes;
  }
  EventId record(ashlar::StreamRef stream) override {
    if (fails()) throw ashlar::Error("record failed");
    return push_record(stream);
  }
  bool done(EventId event) noexcept override { return early_events || events_.at(event); }
  void order(ashlar::StreamRef stream, EventId event) override {
    if (fails()) throw ashlar::Error("order failed");
    if (orders++ != ignored_order) push_wait(stream, event);
  }
  void wait(EventId event) noexcept override {
    ++waits;
    if (!events_.at(event)) drain();
  }
  void forget(EventId event) noexcept override {
    violations += !forgotten_.emplace(event, 0).second;
  }

 private:
  using Work = std::function<bool()>;  // false: not yet

  bool fails() { return calls++ == failing; }
  void enqueue(ashlar::StreamRef stream, Work work) {
    static_cast<std::deque<Work>*>(const_cast<void*>(stream.id()))->push_back(std::move(work));
  }
  EventId push_record(ashlar::StreamRef stream) {
    const EventId event = events_.size();
    events_.push_back(false);
    enqueue(stream, [this, event] { return events_[event] = true; });
    return event;
  }
  void push_wait(ashlar::StreamRef stream, EventId event) {
    enqueue(stream, [this, event] { return static_cast<bool>(events_[event]); });
  }
  bool run_one(std::size_t i) {
    if (queues_[i].empty() || !queues_[i].front()()) return false;
    queues_[i].pop_front();
    return true;
  }
  /// The first and last byte and one in 4096 between.
  template <typename Visit>
  void touch(void* at, std::int64_t bytes, const Visit& visit) {
    auto* data = static_cast<std::uint8_t*>(at);
    for (std::int64_t i = 0; i < bytes;
         i = i == bytes - 1 ? bytes : std::min(i + 4096, bytes - 1)) {
      auto page = pages_.upper_bound(reinterpret_cast<std::byte*>(data + i));
      if (page == pages_.begin() ||
          (--page)->first + kPage <= reinterpret_cast<std::byte*>(data + i))
        ++violations;
      else
        visit(data[i]);
    }
  }

  std::vector<std::deque<Work>> queues_;
  std::vector<bool> events_;
  std::map<EventId, int> forgotten_;
  std::map<std::byte*, std::int64_t> reservations_;
  std::map<std::byte*, int> pages_;
  std::int64_t capacity_;
};
