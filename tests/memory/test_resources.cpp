// One conformance suite, run on every MemoryResource.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ashlar/buffer.hpp"
#include "ashlar/caching_resource.hpp"
#include "ashlar/error.hpp"

using namespace ashlar;

namespace {

constexpr std::int64_t kMiB = 1 << 20;

/// Runs `body` on each resource; at least 64 MiB can be served at once.
void on_every_resource(const std::function<void(MemoryResource&)>& body) {
  SUBCASE("host") { body(host_memory()); }
  SUBCASE("arena") {
    ArenaResource arena(host_memory(), 96 * kMiB, Category::workspace);
    body(arena);
    CHECK(arena.used() == 0);
  }
  SUBCASE("limit") {
    LimitAdaptor limit(host_memory(), 96 * kMiB);
    body(limit);
  }
  SUBCASE("statistics") {
    StatisticsAdaptor statistics(host_memory());
    body(statistics);
    for (const std::int64_t live : statistics.live()) CHECK(live == 0);
  }
  SUBCASE("statistics of a limit of an arena") {
    ArenaResource arena(host_memory(), 96 * kMiB, Category::workspace);
    LimitAdaptor limit(arena, 96 * kMiB);
    StatisticsAdaptor statistics(limit);
    body(statistics);
    for (const std::int64_t live : statistics.live()) CHECK(live == 0);
    CHECK(arena.used() == 0);
  }
  for (const bool expandable : {true, false}) {
    SUBCASE(expandable ? "caching, expandable" : "caching, segments") {
      const std::unique_ptr<PageSource> pages = host_pages();
      CachingOptions options;
      options.expandable = expandable;
      options.limit_bytes = 128 * kMiB;
      CachingResource caching(*pages, options);
      body(caching);
      CHECK(caching.statistics().live_bytes == 0);
    }
  }
}

/// Fails each call whose number is in `failing`, counted from 1.
class FlakyResource final : public MemoryResource {
 public:
  explicit FlakyResource(std::set<int> failing) : failing_(std::move(failing)) {}
  int live() const { return live_; }

 private:
  void* do_allocate(std::int64_t bytes, Category category, StreamRef stream) override {
    if (failing_.contains(++calls_)) throw OutOfMemory("flaky");
    ++live_;
    return host_memory().allocate(bytes, category, stream);
  }
  void do_deallocate(void* pointer, std::int64_t bytes, Category category,
                     StreamRef stream) noexcept override {
    --live_;
    host_memory().deallocate(pointer, bytes, category, stream);
  }

  std::set<int> failing_;
  int calls_ = 0;
  int live_ = 0;
};

struct Block {
  unsigned char* pointer;
  std::int64_t bytes;
  Category category;
  unsigned char fill;
};

/// A seeded trace of allocations and frees in random order, with every byte of live blocks checked
/// before its free.
template <typename Observe>
void run_trace(MemoryResource& resource, unsigned seed, const Observe& observe) {
  std::mt19937 random(seed);
  std::vector<Block> live;
  for (int i = 0; i < 400; ++i) {
    if (live.empty() || random() % 5 < 3) {
      const std::int64_t bytes = random() % 40 == 0 ? 2 * kMiB + random() % 4096 : random() % 5000;
      const auto category = static_cast<Category>(random() % kCategories);
      auto* pointer = static_cast<unsigned char*>(resource.allocate(bytes, category));
      const auto fill = static_cast<unsigned char>(random());
      std::memset(pointer, fill, static_cast<std::size_t>(bytes));
      live.push_back({pointer, bytes, category, fill});
      observe(category, bytes);
    } else {
      std::swap(live[random() % live.size()], live.back());
      const Block block = live.back();
      live.pop_back();
      REQUIRE(std::all_of(block.pointer, block.pointer + block.bytes,
                          [&](unsigned char byte) { return byte == block.fill; }));
      resource.deallocate(block.pointer, block.bytes, block.category);
      observe(block.category, -block.bytes);
    }
  }
  for (const Block& block : live) {
    resource.deallocate(block.pointer, block.bytes, block.category);
    observe(block.category, -block.bytes);
  }
}

void ignore(Category, std::int64_t) {}

}  // namespace

TEST_CASE("memory: pointers are aligned, unique and writable to the last byte") {
  on_every_resource([](MemoryResource& resource) {
    std::vector<Buffer> buffers;
    std::set<std::byte*> starts;
    for (const std::int64_t bytes :
         {std::int64_t{0}, std::int64_t{0}, std::int64_t{1}, std::int64_t{63}, std::int64_t{64},
          std::int64_t{65}, std::int64_t{4097}, 2 * kMiB - 1, 2 * kMiB, 2 * kMiB + 1,
          5 * kMiB + 4095}) {
      Buffer buffer(resource, bytes, Category::activation);
      REQUIRE(buffer.data() != nullptr);
      REQUIRE(reinterpret_cast<std::uintptr_t>(buffer.data()) % kAlignment == 0);
      REQUIRE(starts.insert(buffer.data()).second);
      if (bytes > 0) buffer.data()[0] = buffer.data()[bytes - 1] = std::byte{1};
      buffers.push_back(std::move(buffer));
    }
    // Last in, first out: an arena then rewinds to its start.
    while (!buffers.empty()) buffers.pop_back();
  });
}

TEST_CASE("memory: blocks never overlap, whatever the order of frees") {
  on_every_resource([](MemoryResource& resource) {
    for (unsigned seed = 0; seed < 5; ++seed) run_trace(resource, seed, ignore);
  });
}

TEST_CASE("memory: impossible sizes are refused and leave the resource as it was") {
  on_every_resource([](MemoryResource& resource) {
    CHECK_THROWS_AS(resource.allocate(INT64_MAX, Category::gradient), OutOfMemory);
    CHECK_THROWS_AS(resource.allocate(INT64_MAX - 4096, Category::gradient), OutOfMemory);
    CHECK_THROWS_AS(resource.allocate(INT64_MAX / 2, Category::gradient), OutOfMemory);
    CHECK_THROWS_AS(resource.allocate(-1, Category::gradient), InvalidArgument);
    run_trace(resource, 17, ignore);
  });
}

TEST_CASE("memory: a block freed on a stream lives until the stream's earlier work is done") {
  on_every_resource([](MemoryResource& resource) {
    const Stream stream;
    long sum = 0;
    for (int i = 1; i <= 50; ++i) {
      Buffer buffer(resource, 40'000, Category::workspace, stream);
      auto* values = reinterpret_cast<int*>(buffer.data());
      StreamRef(stream).enqueue([values, i] { std::fill_n(values, 10'000, i); });
      StreamRef(stream).enqueue([values, &sum] { sum += values[9'999]; });
    }
    StreamRef(stream).synchronize();
    CHECK(sum == 50 * 51 / 2);
  });
}

TEST_CASE("memory: threads allocate and free at once") {
  on_every_resource([](MemoryResource& resource) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&resource, t] {
        std::mt19937 random(static_cast<unsigned>(t));
        for (int i = 0; i < 300; ++i) {
          const Buffer buffer(resource, random() % 3000 + 1, Category::input);
          buffer.data()[0] = std::byte{1};
        }
      });
    for (std::thread& thread : threads) thread.join();
  });
}

TEST_CASE("statistics: live and peak bytes equal a model's over random traces") {
  for (unsigned seed = 100; seed < 110; ++seed) {
    StatisticsAdaptor statistics(host_memory());
    PerCategory<std::int64_t> live{};
    PerCategory<std::int64_t> peak{};
    std::int64_t total = 0;
    std::int64_t peak_total = 0;
    std::int64_t allocations = 0;
    run_trace(statistics, seed, [&](Category category, std::int64_t change) {
      const auto index = static_cast<std::size_t>(category);
      live[index] += change;
      total += change;
      peak[index] = std::max(peak[index], live[index]);
      peak_total = std::max(peak_total, total);
      allocations += change >= 0 ? 1 : 0;
      REQUIRE(statistics.live() == live);
    });
    CHECK(statistics.peak() == peak);
    CHECK(statistics.peak_total() == peak_total);
    CHECK(statistics.allocations() >= allocations - 2);  // frees of 0 bytes look like allocations
    CHECK(statistics.allocations() <= allocations);
  }
}

TEST_CASE("adaptors: a failure upstream at each n-th call changes no count") {
  for (int failing = 1; failing <= 6; ++failing) {
    FlakyResource flaky({failing});
    LimitAdaptor limit(flaky, 600);
    StatisticsAdaptor statistics(limit);
    {
      std::vector<Buffer> buffers;
      int failures = 0;
      while (buffers.size() < 6) {
        try {
          buffers.emplace_back(statistics, 100, Category::gradient);
        } catch (const OutOfMemory&) {
          REQUIRE(++failures == 1);
        }
      }
      CHECK(failures == 1);
      CHECK(statistics.live()[static_cast<std::size_t>(Category::gradient)] == 600);
      CHECK(statistics.peak_total() == 600);
      CHECK_THROWS_AS(statistics.allocate(1, Category::gradient), OutOfMemory);
    }
    CHECK(flaky.live() == 0);
    CHECK(statistics.live()[static_cast<std::size_t>(Category::gradient)] == 0);
    CHECK(statistics.allocations() == 6);
  }
}

TEST_CASE("limit: the message names the request, the limit and the holders, largest first") {
  LimitAdaptor limit(host_memory(), 4096);
  const Buffer parameters(limit, 1024, Category::parameter);
  const Buffer activations(limit, 2048, Category::activation);
  CHECK_THROWS_WITH_AS(
      limit.allocate(1025, Category::gradient),
      "out of memory: 1.00 KiB for gradient: of the limit of 4.00 KiB, 3.00 KiB are held by "
      "activation 2.00 KiB, parameter 1.00 KiB; raise the limit, use a smaller batch or more ranks",
      OutOfMemory);
  const Buffer exact(limit, 1024, Category::gradient);
  CHECK(exact.bytes() == 1024);
}

TEST_CASE("statistics: an upstream failure is told with the holders") {
  FlakyResource flaky({2});
  StatisticsAdaptor statistics(flaky);
  const Buffer held(statistics, 512, Category::optimizer_state);
  CHECK_THROWS_WITH_AS(statistics.allocate(1, Category::input),
                       "flaky (held so far: optimizer_state 512 B)", OutOfMemory);
}

TEST_CASE("arena: front to back, rewinds its last block, starts again when empty") {
  StatisticsAdaptor upstream(host_memory());
  {
    ArenaResource arena(upstream, 1024, Category::gradient);
    CHECK(arena.capacity() == 1024);
    CHECK(upstream.live()[static_cast<std::size_t>(Category::gradient)] == 1024);
    auto* first = static_cast<std::byte*>(arena.allocate(100, Category::input));
    auto* second = static_cast<std::byte*>(arena.allocate(65, Category::input));
    CHECK(second == first + 128);
    CHECK(arena.used() == 256);
    arena.deallocate(second, 65, Category::input);
    CHECK(arena.used() == 128);
    second = static_cast<std::byte*>(arena.allocate(896, Category::parameter));
    CHECK(second == first + 128);
    arena.deallocate(first, 100, Category::input);
    CHECK(arena.used() == 1024);
    CHECK_THROWS_WITH_AS(
        arena.allocate(1, Category::input),
        "out of memory: 1 B for input: 1.00 KiB of an arena of 1.00 KiB are used, held "
        "by parameter 896 B; make the arena larger",
        OutOfMemory);
    arena.deallocate(second, 896, Category::parameter);
    CHECK(arena.used() == 0);
    CHECK(upstream.allocations() == 1);
  }
  CHECK(upstream.live()[static_cast<std::size_t>(Category::gradient)] == 0);
}

TEST_CASE("buffer: moves its bytes, frees them once, on time") {
  StatisticsAdaptor statistics(host_memory());
  const auto live = [&] { return statistics.live()[static_cast<std::size_t>(Category::input)]; };
  Buffer first(statistics, 100, Category::input);
  std::byte* data = first.data();
  Buffer second = std::move(first);
  CHECK(second.data() == data);
  CHECK(live() == 100);
  second = Buffer(statistics, 50, Category::input);
  CHECK(live() == 50);
  second.reset();
  second.reset();
  CHECK(live() == 0);
  CHECK(second.data() == nullptr);
}

TEST_CASE("format: bytes as text and back") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(64) == "64 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1024) == "1.00 KiB");
  CHECK(format_bytes(3 * kMiB / 2) == "1.50 MiB");
  CHECK(format_bytes(INT64_MAX) == "8.00 EiB");
  CHECK(format_bytes(-2048) == "-2.00 KiB");
  CHECK(parse_bytes("123") == 123);
  CHECK(parse_bytes("4KiB") == 4096);
  CHECK(parse_bytes("1.5MiB") == 3 * kMiB / 2);
  CHECK(parse_bytes("2GiB") == std::int64_t{2} << 30);
  CHECK(parse_bytes("9223372036854775807") == INT64_MAX);
  CHECK(parse_bytes("0") == 0);
  for (std::int64_t unit = 1; unit < INT64_MAX / 2048; unit *= 1024)
    for (const std::int64_t times : {1, 7, 250, 1000})
      CHECK(parse_bytes(format_bytes(unit * times)) == unit * times);
}

TEST_CASE("format: what is not a size is refused with its text") {
  for (const char* text : {"", "KiB", "4KB", "4 K", "-1", "1.2.3", "four", "1e3", "8EiB",
                           "9223372036854775808", "16384PiB", ".", "4KiBs", "inf", "nan", "0x10"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_bytes(text), InvalidArgument);
  }
  CHECK_THROWS_WITH(
      parse_bytes("4KB"),
      "'4KB' is not a size in bytes (unknown unit 'KB'): write 123, 4KiB, 1.5MiB or 2GiB");
}

TEST_CASE("describe: largest holders first, zeros left out") {
  PerCategory<std::int64_t> bytes{};
  CHECK(describe(bytes) == "nothing");
  bytes[static_cast<std::size_t>(Category::activation)] = 310 * kMiB;
  bytes[static_cast<std::size_t>(Category::parameter)] = 1024 * kMiB;
  CHECK(describe(bytes) == "parameter 1.00 GiB, activation 310.00 MiB");
}
