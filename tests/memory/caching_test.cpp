// What the caching allocator promises, case by case.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/error.hpp"
#include "memory/caching/bins.hpp"
#include "support/fake_device.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr auto kCategory = Category::activation;

std::byte* allocate(CachingResource& resource, std::int64_t bytes, StreamRef stream = {}) {
  return static_cast<std::byte*>(resource.allocate(bytes, kCategory, stream));
}
void free(CachingResource& resource, void* pointer, std::int64_t bytes, StreamRef stream = {}) {
  resource.deallocate(pointer, bytes, kCategory, stream);
}

CachingOptions limited(std::int64_t limit) {
  CachingOptions options;
  options.limit_bytes = limit;
  return options;
}

}  // namespace

TEST_CASE("caching bins: classes are monotone, rounding wastes at most a sixteenth") {
  std::size_t last = 0;
  for (std::int64_t bytes = 512; bytes < 64 * kMiB; bytes += 512) {
    const std::size_t index = detail::class_of(bytes);
    REQUIRE(index >= last);
    REQUIRE(index <= last + 1);
    last = index;
    const std::int64_t rounded = detail::round_to_class(bytes);
    REQUIRE(rounded >= bytes);
    REQUIRE(rounded % 512 == 0);
    REQUIRE(16 * (rounded - bytes) <= bytes);
  }
  CHECK(detail::class_of(INT64_MAX / 2) < 14 * 64);
}

TEST_CASE("caching: the smallest hole serves, is split, and joins its neighbours again") {
  FakeDevice device(1);
  const StreamRef s = device.stream(0);
  CachingResource resource(device);
  std::vector<std::byte*> blocks;
  const std::vector<std::int64_t> sizes{8 * kMiB, 2 * kMiB, 4 * kMiB, 2 * kMiB, 6 * kMiB, 2 * kMiB};
  for (const std::int64_t bytes : sizes) blocks.push_back(allocate(resource, bytes, s));
  const std::int64_t reserved = resource.statistics().reserved_bytes;
  for (const std::size_t i : {0, 2, 4}) free(resource, blocks[i], sizes[i], s);

  std::byte* small = allocate(resource, 3 * kMiB, s);
  CHECK(small == blocks[2]);
  CHECK(allocate(resource, 6 * kMiB, s) == blocks[4]);
  CHECK(allocate(resource, 7 * kMiB, s) == blocks[0]);
  CHECK(allocate(resource, kMiB + 1 - 4096, s) != blocks[2]);  // small pool: pages of its own
  free(resource, small, 3 * kMiB, s);
  free(resource, blocks[1], 2 * kMiB, s);
  free(resource, blocks[3], 2 * kMiB, s);
  CHECK(allocate(resource, 8 * kMiB, s) == blocks[0] + 7 * kMiB);
  CHECK(resource.statistics().reserved_bytes == reserved + FakeDevice::kPage * 16);
}

TEST_CASE("caching: a repeated step makes no call below after the first") {
  for (const bool expandable : {true, false}) {
    CAPTURE(expandable);
    SimulatedPages device(INT64_MAX, 50);
    CachingOptions options;
    options.expandable = expandable;
    CachingResource resource(device, options);
    std::int64_t calls[3];
    for (std::int64_t& count : calls) {
      replay(steady_step_trace(3), resource, device.replay_options());
      count = resource.statistics().source_calls;
    }
    CHECK(calls[0] > 0);
    CHECK(calls[2] == calls[1]);
    CHECK(resource.statistics().events <= 30);
  }
}

TEST_CASE("caching: memory freed on a stream and in use there serves another, ordered after it") {
  FakeDevice device(2);
  const StreamRef a = device.stream(0), b = device.stream(1);
  CachingResource resource(device);
  std::byte* first = allocate(resource, 4 * kMiB, a);
  device.write(a, first, 4 * kMiB, 1);
  device.expect(a, first, 4 * kMiB, 1);
  free(resource, first, 4 * kMiB, a);

  std::byte* second = allocate(resource, 4 * kMiB, b);
  CHECK(second == first);
  CHECK(resource.statistics().orderings == 1);
  device.write(b, second, 4 * kMiB, 2);
  device.run(1);
  device.drain();
  CHECK(device.violations == 0);
  CHECK(device.waits == 0);
  free(resource, second, 4 * kMiB, b);
}

TEST_CASE("caching: without ordering the cache grows until the event has happened") {
  FakeDevice device(2);
  const StreamRef a = device.stream(0), b = device.stream(1);
  CachingOptions options;
  options.order_streams = false;
  CachingResource resource(device, options);
  std::byte* first = allocate(resource, 4 * kMiB, a);
  device.write(a, first, 4 * kMiB, 1);
  free(resource, first, 4 * kMiB, a);
  std::byte* second = allocate(resource, 4 * kMiB, b);
  CHECK(second != first);
  device.drain();
  CHECK(allocate(resource, 4 * kMiB, b) == first);
  CHECK(resource.statistics().orderings == 0);
  CHECK(resource.statistics().reserved_bytes == 8 * kMiB);
}

TEST_CASE(
    "caching: who frees on another stream marks the point; later work there is not waited for") {
  FakeDevice device(2);
  const StreamRef a = device.stream(0), b = device.stream(1);
  CachingResource resource(device);
  std::byte* gathered = allocate(resource, 4 * kMiB, a);
  device.join(b, a);
  device.expect(b, gathered, 4 * kMiB, 0);
  free(resource, gathered, 4 * kMiB, b);
  device.run(0);
  device.run(1);
  device.write(a, allocate(resource, 512, a), 512, 1);
  device.join(b, a);  // stream b now stands behind what a has not done yet
  std::byte* next = allocate(resource, 4 * kMiB, a);
  CHECK(next == gathered);
  device.write(a, next, 4 * kMiB, 3);
  device.run(0);
  CHECK(next[0] == std::byte{3});
  device.drain();
  CHECK(device.violations == 0);
}

TEST_CASE("caching: what is left of a run still waits for the streams that it came from") {
  FakeDevice device(3);
  const StreamRef a = device.stream(0), b = device.stream(1), c = device.stream(2);
  CachingResource resource(device);
  std::byte* first = allocate(resource, 4 * kMiB, a);
  std::byte* second = allocate(resource, 6 * kMiB, b);
  device.write(a, first, 4 * kMiB, 7);
  device.write(b, second, 6 * kMiB, 7);
  free(resource, first, 4 * kMiB, a);
  free(resource, second, 6 * kMiB, b);
  CHECK(allocate(resource, 7 * kMiB, c) == first);
  std::byte* rest = allocate(resource, 3 * kMiB, a);
  CHECK(rest == first + 7 * kMiB);
  device.write(a, rest, 3 * kMiB, 9);
  device.run(0);
  device.run(1);
  device.drain();
  device.expect(a, rest, 3 * kMiB, 9);
  device.drain();
  CHECK(device.violations == 0);
}

TEST_CASE("caching: a block joined from two streams is as late as the later of them") {
  FakeDevice device(3);
  const StreamRef a = device.stream(0), b = device.stream(1), c = device.stream(2);
  CachingResource resource(device);
  std::byte* first = allocate(resource, 2 * kMiB, a);
  std::byte* second = allocate(resource, 2 * kMiB, b);
  std::byte* third = allocate(resource, 2 * kMiB, b);
  device.write(a, first, 2 * kMiB, 7);
  free(resource, first, 2 * kMiB, a);
  CHECK(allocate(resource, 2 * kMiB, b) == first);  // b is ordered after a
  free(resource, first, 2 * kMiB, b);
  free(resource, second, 2 * kMiB, b);
  std::byte* joined = allocate(resource, 4 * kMiB, c);
  CHECK(joined == first);
  device.write(c, joined, 4 * kMiB, 9);
  device.run(2);
  device.run(1);
  device.drain();
  device.expect(c, joined, 4 * kMiB, 9);
  device.drain();
  CHECK(device.violations == 0);
  free(resource, third, 2 * kMiB, b);
}

TEST_CASE("caching: a run of neighbours freed on different streams serves one request") {
  FakeDevice device(3);
  CachingResource resource(device);
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(allocate(resource, 2 * kMiB, device.stream(i)));
  const std::int64_t reserved = resource.statistics().reserved_bytes;
  for (int i = 0; i < 3; ++i) {
    device.write(device.stream(i), blocks[static_cast<std::size_t>(i)], 2 * kMiB, 7);
    free(resource, blocks[static_cast<std::size_t>(i)], 2 * kMiB, device.stream(i));
  }
  std::byte* whole = allocate(resource, 6 * kMiB, device.stream(2));
  CHECK(whole == blocks[0]);
  CHECK(resource.statistics().reserved_bytes == reserved);
  CHECK(resource.statistics().orderings == 2);
  device.write(device.stream(2), whole, 6 * kMiB, 8);
  device.expect(device.stream(2), whole, 6 * kMiB, 8);
  device.run(2);
  device.drain();
  CHECK(device.violations == 0);
}

TEST_CASE("caching: pages move from holes to where they are needed instead of growing") {
  FakeDevice device(1, 8 * kMiB);  // the device has no more
  const StreamRef s = device.stream(0);
  CachingResource resource(device);
  std::vector<std::byte*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(allocate(resource, 2 * kMiB, s));
  free(resource, blocks[0], 2 * kMiB, s);
  free(resource, blocks[2], 2 * kMiB, s);
  std::byte* moved = allocate(resource, 4 * kMiB, s);
  CHECK(moved > blocks[3]);
  CHECK(device.mapped == 8 * kMiB);
  free(resource, moved, 4 * kMiB, s);
  free(resource, blocks[1], 2 * kMiB, s);
  free(resource, blocks[3], 2 * kMiB, s);
  CHECK(resource.trim() == 8 * kMiB);
  CHECK(device.mapped == 0);
}

TEST_CASE("caching: out of memory says what is held and what would help, and nothing is lost") {
  FakeDevice device(1);
  const StreamRef s = device.stream(0);
  CachingResource resource(device, limited(8 * kMiB));
  void* held = resource.allocate(4 * kMiB, Category::parameter, s);
  void* more = resource.allocate(2 * kMiB, Category::gradient, s);
  CHECK_THROWS_WITH_AS(
      resource.allocate(3 * kMiB, Category::workspace, s),
      "out of memory: 3.00 MiB for workspace: cache: 6.00 MiB live, 6.00 MiB reserved, largest "
      "free "
      "block 0 B, held by parameter 4.00 MiB, gradient 2.00 MiB; raise the limit of 8.00 MiB, free "
      "what can be rebuilt in a retry callback, use a smaller batch, recomputation or more ranks",
      OutOfMemory);
  resource.deallocate(more, 2 * kMiB, Category::gradient, s);
  more = resource.allocate(4 * kMiB, Category::workspace, s);
  resource.deallocate(more, 4 * kMiB, Category::workspace, s);
  resource.deallocate(held, 4 * kMiB, Category::parameter, s);
}

TEST_CASE("caching: advice never names what is already on") {
  for (const bool expandable : {true, false})
    for (const bool callback : {true, false}) {
      FakeDevice device(1, 64 * kMiB);
      CachingOptions options;
      options.expandable = expandable;
      if (callback) options.retry = [](std::int64_t) { return false; };
      CachingResource resource(device, options);
      std::vector<std::byte*> blocks;
      for (int i = 0; i < 32; ++i) blocks.push_back(allocate(resource, 3 * kMiB / 2));
      for (std::size_t i = 0; i < 32; i += 2) free(resource, blocks[i], 3 * kMiB / 2);
      const std::string said = message_of<OutOfMemory>([&] { allocate(resource, 50 * kMiB); });
      CAPTURE(said);
      CHECK(contains(said, "expandable") == !expandable);
      CHECK(contains(said, "retry callback") == !callback);
      CHECK_FALSE(contains(said, "limit"));
    }
}

TEST_CASE(
    "caching: the retry callback may free, with the resource, and the request is tried again") {
  FakeDevice device(1);
  const StreamRef s = device.stream(0);
  CachingOptions options = limited(4 * kMiB);
  CachingResource* self = nullptr;
  std::byte* spare = nullptr;
  std::int64_t asked = 0;
  options.retry = [&](std::int64_t bytes) {
    asked = bytes;
    if (spare == nullptr) return false;
    free(*self, std::exchange(spare, nullptr), 3 * kMiB, s);
    return true;
  };
  CachingResource resource(device, options);
  self = &resource;
  spare = allocate(resource, 3 * kMiB, s);
  CHECK(allocate(resource, 2 * kMiB, s) != nullptr);
  CHECK(asked == 2 * kMiB);
  CHECK_THROWS_AS(allocate(resource, 3 * kMiB, s), OutOfMemory);
}

TEST_CASE("caching: before out-of-memory the device is waited for") {
  FakeDevice device(1, 8 * kMiB);
  const StreamRef s = device.stream(0);
  CachingResource resource(device);
  std::byte* big = allocate(resource, 8 * kMiB, s);
  device.write(s, big, 8 * kMiB, 1);
  free(resource, big, 8 * kMiB, s);
  std::byte* small = allocate(resource, 512, s);  // its page must come from the big block
  CHECK(device.waits == 1);
  device.write(s, small, 512, 2);
  device.drain();
  CHECK(device.violations == 0);
  CHECK(device.mapped <= 8 * kMiB);
}

TEST_CASE("caching: a retired stream's memory is everybody's") {
  FakeDevice device(2);
  CachingResource resource(device);
  std::byte* first = allocate(resource, 4 * kMiB, device.stream(0));
  free(resource, first, 4 * kMiB, device.stream(0));
  resource.retire(device.stream(0));
  CHECK(allocate(resource, 4 * kMiB, device.stream(1)) == first);
  CHECK(resource.statistics().orderings == 0);
  CHECK(resource.statistics().events == 0);
}

TEST_CASE("caching: a block freed twice, or with another size, ends the program with one line") {
  const auto dies = [](const auto& body) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(STDERR_FILENO);
      std::signal(SIGABRT, SIG_DFL);
      body();
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  };
  FakeDevice device(1);
  CachingResource resource(device);
  std::byte* block = allocate(resource, 100);
  CHECK(dies([&] {
    free(resource, block, 100);
    free(resource, block, 100);
  }));
  CHECK(dies([&] { free(resource, block, 101); }));
  CHECK(dies([&] { free(resource, block + 64, 100); }));
  CHECK_FALSE(dies([&] { free(resource, block, 100); }));
}

TEST_CASE("caching: options out of range are refused by name") {
  FakeDevice device(1);
  for (const auto& [change, said] :
       std::vector<std::pair<std::function<void(CachingOptions&)>, std::string>>{
           {[](CachingOptions& o) { o.limit_bytes = -1; }, "cache: limit_bytes is negative"},
           {[](CachingOptions& o) { o.slack = -0.1; }, "cache: slack is negative"},
           {[](CachingOptions& o) { o.segment_bytes = 0; }, "cache: segment_bytes is not positive"},
           {[](CachingOptions& o) { o.range_bytes = 0; }, "cache: range_bytes is not positive"},
           {[](CachingOptions& o) { o.history = -1; }, "cache: history is negative"}}) {
    CachingOptions options;
    change(options);
    CHECK_THROWS_WITH_AS(CachingResource(device, options), said.c_str(), InvalidArgument);
  }
}

TEST_CASE("caching: what is reserved stays near what is live on synthetic training steps") {
  const auto ratio = [](const Trace& trace, std::int64_t run_ahead) {
    SimulatedPages device(INT64_MAX, run_ahead);
    CachingResource resource(device);
    const ReplayReport report = replay(trace, resource, device.replay_options());
    CHECK(report.failures == 0);
    CHECK(report.peak_live_bytes == trace.peak_live_bytes());
    CHECK(resource.statistics().live_bytes == 0);
    return static_cast<double>(resource.statistics().peak_reserved_bytes) /
           static_cast<double>(report.peak_live_bytes);
  };
  for (const std::int64_t run_ahead : {0, 30, 300, 3000}) {
    CAPTURE(run_ahead);
    CHECK(ratio(fsdp_trace(), run_ahead) <= 1.03);
    for (unsigned seed = 0; seed < 10; ++seed)
      CHECK(ratio(variable_lengths_trace(seed), run_ahead) <= 1.05);
    CHECK(ratio(steady_step_trace(), run_ahead) <= 1.01);
  }
}
