// Random operations on random streams against a model, on a device whose work runs late.
#include <doctest/doctest.h>

#include <iterator>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "ashlar/error.hpp"
#include "support/fake_device.hpp"

using namespace ashlar;

namespace {

constexpr int kStreams = 3;

struct Held {
  std::int64_t bytes;
  Category category;
  int stream;
  std::uint8_t value;
};

/// A program on a device: allocates on one stream, works there, sometimes hands over to another,
/// frees. Never touches what it does not hold.
class Program {
 public:
  Program(FakeDevice& device, CachingResource& resource, unsigned seed)
      : device_(device), resource_(resource), random_(seed) {}

  void run(int operations) {
    for (int i = 0; i < operations; ++i) {
      if (live_.empty() || random_() % 100 < 52)
        allocate();
      else
        free(std::next(live_.begin(), static_cast<std::ptrdiff_t>(random_() % live_.size())));
      for (unsigned steps = random_() % 8; steps > 0; --steps) device_.step(random_);
      if (random_() % 500 == 0) trim();
      if (i % 64 == 0) check();
    }
  }
  void finish() {
    while (!live_.empty()) free(live_.begin());
    device_.drain();
  }
  int failures() const { return failures_; }

 private:
  void trim() {
    try {
      resource_.trim();
    } catch (const Error&) {
      ++failures_;
    }
  }

  std::int64_t size() {
    switch (random_() % 4) {
      case 0:
        return static_cast<std::int64_t>(random_() % 700);
      case 1:
        return static_cast<std::int64_t>(random_() % 100'000);
      case 2:
        return static_cast<std::int64_t>((1 << 20) - 100 + random_() % 200);
      default:
        return static_cast<std::int64_t>(random_() % 5'000'000);
    }
  }

  void allocate() {
    const Held held{size(), static_cast<Category>(random_() % kCategories),
                    static_cast<int>(random_() % kStreams), static_cast<std::uint8_t>(random_())};
    std::byte* at = nullptr;
    try {
      at = static_cast<std::byte*>(
          resource_.allocate(held.bytes, held.category, device_.stream(held.stream)));
    } catch (const Error&) {
      ++failures_;
      check();
      return;
    }
    REQUIRE(reinterpret_cast<std::uintptr_t>(at) % kAlignment == 0);
    const auto [place, fresh] = live_.emplace(at, held);
    REQUIRE(fresh);
    if (place != live_.begin())
      REQUIRE(std::prev(place)->first + std::prev(place)->second.bytes <= at);
    if (std::next(place) != live_.end()) REQUIRE(at + held.bytes <= std::next(place)->first);
    live_bytes_ += held.bytes;
    peak_ = std::max(peak_, live_bytes_);
    device_.write(device_.stream(held.stream), at, held.bytes, held.value);
  }

  void free(std::map<std::byte*, Held>::iterator place) {
    const auto [at, held] = *place;
    int last = held.stream;
    if (random_() % 3 == 0) {
      last = static_cast<int>(random_() % kStreams);
      device_.join(device_.stream(last), device_.stream(held.stream));
    }
    device_.expect(device_.stream(last), at, held.bytes, held.value);
    live_.erase(place);
    live_bytes_ -= held.bytes;
    resource_.deallocate(at, held.bytes, held.category, device_.stream(last));
  }

  void check() {
    const CachingStatistics s = resource_.statistics();
    REQUIRE(s.live_bytes == live_bytes_);
    REQUIRE(s.peak_live_bytes == peak_);
    REQUIRE(s.reserved_bytes == device_.mapped);
    REQUIRE(s.reserved_bytes >= live_bytes_);
  }

  FakeDevice& device_;
  CachingResource& resource_;
  std::mt19937 random_;
  std::map<std::byte*, Held> live_;
  std::int64_t live_bytes_ = 0, peak_ = 0;
  int failures_ = 0;
};

CachingOptions options_of(unsigned seed) {
  CachingOptions options;
  options.expandable = seed % 2 == 0;
  options.order_streams = seed % 4 < 2;
  options.segment_bytes = 3 << 20;
  options.range_bytes = seed % 8 < 4 ? 64 << 20 : std::int64_t{1} << 36;
  options.slack = seed % 3 == 0 ? 0 : 0.1;
  if (seed % 5 == 0) options.limit_bytes = 40 << 20;
  options.history = seed % 7 == 0 ? 50 : 0;
  return options;
}

/// Violations of a whole random program.
int violations(FakeDevice& device, unsigned seed, int operations) {
  CachingResource resource(device, options_of(seed));
  Program program(device, resource, seed);
  program.run(operations);
  program.finish();
  return device.violations;
}

}  // namespace

TEST_CASE("caching fuzz: no work meets another's bytes, counts equal a model's, all pages return") {
  for (unsigned seed = 0; seed < 24; ++seed) {
    CAPTURE(seed);
    FakeDevice device(kStreams, seed % 6 == 0 ? 48 << 20 : INT64_MAX);
    {
      CachingResource resource(device, options_of(seed));
      Program program(device, resource, seed);
      program.run(1500);
      program.finish();
      CHECK(resource.statistics().live_bytes == 0);
      resource.trim();
      CHECK(device.mapped == 0);
    }
    CHECK(device.violations == 0);
    CHECK(device.mapped == 0);
    CHECK(device.reservations() == 0);
  }
}

TEST_CASE("caching fuzz: the source fails at each n-th call and nothing leaks") {
  for (const unsigned seed : {0U, 1U, 2U, 5U, 6U, 7U}) {
    CAPTURE(seed);
    FakeDevice whole(kStreams);
    violations(whole, seed, 150);
    for (std::int64_t n = 0; n < whole.calls; n += 1 + n / 20) {
      CAPTURE(n);
      FakeDevice device(kStreams);
      device.failing = n;
      REQUIRE(violations(device, seed, 150) == 0);
      REQUIRE(device.mapped == 0);
      REQUIRE(device.reservations() == 0);
    }
  }
}

TEST_CASE("caching fuzz: an event that is ignored is caught") {
  int caught_orders = 0, caught_early = 0;
  for (unsigned seed = 0; seed < 8; ++seed) {
    FakeDevice early(kStreams);
    early.early_events = true;
    caught_early += violations(early, seed, 600) > 0;
    for (std::int64_t n = 0; n < 10; ++n) {
      FakeDevice device(kStreams);
      device.ignored_order = n;
      caught_orders += violations(device, seed, 600) > 0;
    }
  }
  CHECK(caught_early == 8);
  CHECK(caught_orders > 0);
}

TEST_CASE("caching fuzz: threads with streams of their own") {
  const std::unique_ptr<PageSource> pages = host_pages();
  CachingResource resource(*pages);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&resource, t] {
      const Stream own;
      std::mt19937 random(t);
      for (int i = 0; i < 400; ++i) {
        const auto bytes = static_cast<std::int64_t>(random() % 300'000 + 1);
        auto* at = static_cast<unsigned char*>(resource.allocate(bytes, Category::activation, own));
        StreamRef(own).enqueue(
            [at, bytes, i] { at[0] = at[bytes - 1] = static_cast<unsigned char>(i); });
        StreamRef(own).enqueue([at, bytes, i] {
          if (at[0] != static_cast<unsigned char>(i) || at[bytes - 1] != at[0])
            throw Error("overlap");
        });
        resource.deallocate(at, bytes, Category::activation, own);
      }
      StreamRef(own).synchronize();
      resource.retire(own);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(resource.statistics().live_bytes == 0);
  CHECK(resource.statistics().allocations == 1600);
}
