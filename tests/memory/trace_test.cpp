// Allocation traces: what is read, what is refused, what is repeated.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <sstream>
#include <string>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/error.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

namespace {

const std::string kHeader = "Thread,Time,Action,Pointer,Size,Stream\n";

Trace read(const std::string& text) {
  std::istringstream input(text);
  return read_trace(input, "t.csv");
}

/// The field that ends at `at` or after it.
void replace_field(std::string& text, std::size_t at, const std::string& with) {
  const std::size_t end = text.find_first_of(",\n", at);
  if (end == std::string::npos || end == 0) return;
  const std::size_t before = text.find_last_of(",\n", end - 1);
  const std::size_t begin = before == std::string::npos ? 0 : before + 1;
  text.replace(begin, end - begin, with);
}

void replay_on_addresses(const Trace& trace) {
  SimulatedPages device(INT64_MAX, 10);
  CachingResource resource(device);
  const ReplayReport report = replay(trace, resource, device.replay_options());
  REQUIRE(report.operations == std::ssize(trace.operations));
  REQUIRE(report.peak_live_bytes <= trace.peak_live_bytes());
  REQUIRE(trace.peak_live_bytes() >= 0);
  REQUIRE(resource.statistics().live_bytes == 0);
}

}  // namespace

TEST_CASE("trace: RMM's log is read") {
  const Trace trace = read(kHeader +
                           "26843,12:34:56:000001,allocate,0x7f0000000000,1024,0x0\n"
                           "26843,12:34:56:000002,allocate failure,(nil),99999,0x0\n"
                           "26843,12:34:56:000003,allocate,0x7f0000000400,64,0x55d0\r\n"
                           "26843,12:34:56:000004,allocate,0x0,0,0x0\n"
                           "26843,12:34:56:000005,free,0x7f0000000000,1024,0x55d0\n"
                           "26843,12:34:56:000006,allocate,0x7f0000000000,8,0\n");
  REQUIRE(trace.operations.size() == 4);
  CHECK(trace.blocks == 3);
  CHECK(trace.operations[1].bytes == 64);
  CHECK(trace.operations[1].stream == 0x55d0);
  CHECK_FALSE(trace.operations[2].allocate);
  CHECK(trace.operations[2].block == 0);
  CHECK(trace.operations[2].stream == 0x55d0);
  CHECK(trace.operations[2].line == 6);
  CHECK(trace.operations[3].block == 2);
  CHECK(trace.peak_live_bytes() == 1088);
}

TEST_CASE("trace: what is malformed is refused with its line") {
  const auto said = [](const std::string& text) {
    return message_of<InvalidArgument>([&] { read(text); });
  };
  const std::string a = "1,0,allocate,0x10,100,0\n";
  const std::string f = "1,0,free,0x10,100,0\n";
  CHECK(said("") == "t.csv:1: the file is empty; its first line names the columns");
  CHECK(said("Thread,Time\n") ==
        "t.csv:1: no column Action; needed are Thread,Time,Action,Pointer,Size,Stream");
  CHECK(said("Thread,Weight\n") == "t.csv:1: unknown column 'Weight'");
  CHECK(said("Thread,Thread\n") == "t.csv:1: column Thread twice");
  CHECK(said(kHeader + "1,2\n") == "t.csv:2: 2 fields instead of 6");
  CHECK(said(kHeader + "1,0,allocate,0x1g,1,0\n") == "t.csv:2: Pointer '0x1g' is not an address");
  CHECK(said(kHeader + "1,0,allocate,0x10,-1,0\n") ==
        "t.csv:2: Size '-1' is not a number of bytes");
  CHECK(said(kHeader + "1,0,allocate,0x10,9223372036854775808,0\n") ==
        "t.csv:2: 9223372036854775808 bytes are too many");
  const std::string half = ",4611686018427387904,0\n";
  CHECK(said(kHeader + "1,0,allocate,0x10" + half + "1,0,allocate,0x20,1,0\n") ==
        "t.csv:3: allocates 1 B, more than 2^62 B are live then");
  CHECK(said(kHeader + "1,0,allocate,0x10,1\r2,0\n") ==
        "t.csv:2: Size '1\\x0d2' is not a number of bytes");
  CHECK(said(kHeader + "1,0,allocate,0x10,1,\n") == "t.csv:2: Stream '' is not a stream");
  CHECK(said(kHeader + "1,0,resize,0x10,1,0\n") ==
        "t.csv:2: unknown action 'resize'; it is allocate, free or allocate failure");
  CHECK(said(kHeader + a + f + f) == "t.csv:4: frees 0x10, which was freed on line 3");
  CHECK(said(kHeader + f) == "t.csv:2: frees 0x10, which was never allocated");
  CHECK(said(kHeader + a + a) == "t.csv:3: allocates 0x10, which is live since line 2");
  CHECK(said(kHeader + a + "1,0,free,0x10,99,0\n") ==
        "t.csv:3: frees 99 B at 0x10, which has 100 B since line 2");
  CHECK(said("Thread,Time,Action,Pointer,Size,Stream,Category\n1,0,allocate,0x10,1,0,fun\n") ==
        "t.csv:2: unknown category 'fun'");
  CHECK(message_of<InvalidArgument>([] { read_trace(std::filesystem::path("/no/such")); }) ==
        "/no/such: cannot be read");
  CHECK(message_of<InvalidArgument>([] { read_trace(std::filesystem::path("/tmp")); }) ==
        "/tmp: cannot be read");
}

TEST_CASE("trace: damaged files are read and replayed, or refused with a line, never more") {
  std::mt19937 random(3);
  std::string good = "Thread,Time,Action,Pointer,Size,Stream,Category,Name\n";
  for (int i = 1; i < 12; ++i) good += "1,0,allocate,0x" + std::to_string(i) + "0,64,1,input,x\n";
  for (int i = 1; i < 12; ++i) good += "1,0,free,0x" + std::to_string(i) + "0,64,0x2,input,\n";
  const std::vector<std::string> extremes{"9223372036854775807",
                                          "9223372036854775808",
                                          "0x7fffffffffffffff",
                                          "0xffffffffffffffff",
                                          "18446744073709551616",
                                          "4611686018427387904",
                                          "4611686018427387903",
                                          "(nil)",
                                          "nan",
                                          "-0",
                                          "0",
                                          "7\r7",
                                          "\r"};
  int refused = 0, replayed = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text = good;
    for (unsigned edits = 1 + random() % 4; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 5) {
        case 4:
          replace_field(text, at, extremes[random() % extremes.size()]);
          break;
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 40);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), random() % 40));
          break;
        default:
          text[at] = ",\n0x-"[random() % 5];
      }
      if (text.empty()) text = "\n";
    }
    try {
      const Trace trace = read(text);
      REQUIRE(trace.operations.size() <= 60);
      replay_on_addresses(trace);
      ++replayed;
    } catch (const InvalidArgument& error) {
      ++refused;
      const std::string said = error.what();
      REQUIRE(said.starts_with("t.csv:"));
      REQUIRE(std::ranges::none_of(said, [](char c) { return c >= 0 && c < ' '; }));
    }
  }
  CHECK(refused > 1000);
  CHECK(replayed > 100);
}

TEST_CASE("trace: what the adaptor wrote replays with the same counts") {
  const TemporaryFolder folder;
  const auto pages = host_pages();
  const std::filesystem::path file = folder.path / "trace.csv";
  {
    CachingResource resource(*pages);
    TraceAdaptor traced(resource, file);
    const Stream stream;
    traced.set_name("first, of two");
    void* a = traced.allocate(1000, Category::parameter);
    traced.set_name("second");
    void* b = traced.allocate(3 << 20, Category::gradient, stream);
    traced.deallocate(a, 1000, Category::parameter, stream);
    void* c = traced.allocate(500, Category::input);
    traced.deallocate(b, 3 << 20, Category::gradient, stream);
    traced.deallocate(c, 500, Category::input);
    StreamRef(stream).synchronize();
    resource.retire(stream);
    traced.close();
  }
  const Trace trace = read_trace(file);
  REQUIRE(trace.operations.size() == 6);
  CHECK(trace.names[trace.operations[0].name] == "first  of two");
  CHECK(trace.names[trace.operations[1].name] == "second");
  CHECK(trace.operations[0].category == Category::parameter);
  CHECK(trace.operations[0].stream == 0);
  CHECK(trace.operations[2].stream == trace.operations[1].stream);
  CHECK(trace.operations[2].stream != 0);
  CHECK(trace.peak_live_bytes() == 1000 + (3 << 20));

  CachingResource again(*pages);
  const ReplayReport report = replay(trace, again);
  CHECK(report.operations == 6);
  CHECK(report.peak_live_bytes == trace.peak_live_bytes());
  CHECK(again.statistics().peak_live_bytes == trace.peak_live_bytes());
  CHECK(again.statistics().allocations == 3);
  CHECK(again.statistics().live_bytes == 0);
}

TEST_CASE("trace: the adaptor says when it cannot write") {
  CHECK_THROWS_WITH_AS(TraceAdaptor(host_memory(), "/no/such/trace.csv"),
                       "/no/such/trace.csv: cannot be written", InvalidArgument);
}

TEST_CASE("trace: replay goes on after a failure and names the first line") {
  const Trace trace = read(kHeader +
                           "1,0,allocate,0x10,100,0\n1,0,allocate,0x20,5000,7\n"
                           "1,0,free,0x20,5000,7\n1,0,allocate,0x30,6000,0\n"
                           "1,0,free,0x10,100,0\n");
  LimitAdaptor limit(host_memory(), 1000);
  const ReplayReport report = replay(trace, limit);
  CHECK(report.failures == 2);
  CHECK(report.failing_line == 3);
  CHECK(contains(report.failure, "out of memory: 4.88 KiB"));
  CHECK(report.peak_live_bytes == 100);
  limit.deallocate(limit.allocate(1000, Category::input), 1000, Category::input);
}

TEST_CASE("trace: streams of a trace order the reuse of its memory") {
  Trace trace;
  trace.allocate(4 << 20, Category::gathered_parameter, 1);
  trace.free(trace.operations[0], 0);
  trace.allocate(4 << 20, Category::gathered_parameter, 1);
  SimulatedPages device(INT64_MAX, 10);
  CachingResource resource(device);
  replay(trace, resource, device.replay_options());
  CHECK(resource.statistics().orderings == 1);
  CHECK(resource.statistics().peak_reserved_bytes == 4 << 20);
}

TEST_CASE("trace: generators are deterministic and free what they allocate once") {
  for (const Trace& trace :
       {fsdp_trace(), variable_lengths_trace(3), random_sizes_trace(4), steady_step_trace(2)}) {
    std::vector<int> live(trace.blocks);
    for (const TraceOperation& operation : trace.operations) {
      REQUIRE(live[operation.block] == (operation.allocate ? 0 : 1));
      live[operation.block] = operation.allocate ? 1 : 2;
      REQUIRE(operation.name < trace.names.size());
    }
  }
  CHECK(fsdp_trace().peak_live_bytes() == fsdp_trace().peak_live_bytes());
  CHECK(variable_lengths_trace(3).peak_live_bytes() != variable_lengths_trace(4).peak_live_bytes());
}
