// Snapshots and timelines. What torch says to a snapshot is tests/oracle/check_snapshot.py's part.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/error.hpp"
#include "memory/caching/pickle.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

namespace {

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
    ++found;
  return found;
}

}  // namespace

TEST_CASE("pickle: bytes as the protocol says") {
  detail::PickleWriter out;
  out.begin_dict();
  out.entry("a", 255);
  out.entry("b", -2);
  out.entry("c", std::int64_t{1} << 40);
  out.text("d");
  out.begin_list();
  out.boolean(true);
  out.end_list();
  out.end_dict();
  const std::string expected(
      "\x80\x02}(X\x01\0\0\0aK\xffX\x01\0\0\0bJ\xfe\xff\xff\xffX\x01\0\0\0"
      "c\x8a\x08\0\0\0\0\0\x01\0\0X\x01\0\0\0d](\x88"
      "eu.",
      51);
  CHECK(out.take() == expected);
}

TEST_CASE("snapshot: every live block and every stretch of pages is in it") {
  const TemporaryFolder folder;
  SimulatedPages device;
  CachingOptions options;
  options.history = 6;
  CachingResource resource(device, options);
  std::vector<void*> blocks;
  for (int i = 0; i < 5; ++i)
    blocks.push_back(resource.allocate(3 << 20, Category::gradient, SimulatedPages::stream(1)));
  void* small = resource.allocate(100, Category::parameter, SimulatedPages::stream(1));
  resource.deallocate(blocks[2], 3 << 20, Category::gradient, SimulatedPages::stream(2));
  // Whoever checks the file with another program names it and gets the totals beside it.
  const char* wanted = std::getenv("ASHLAR_SNAPSHOT");
  const std::filesystem::path path =
      wanted != nullptr ? std::filesystem::path(wanted) : folder.path / "snapshot.pickle";
  resource.dump_snapshot(path);
  if (wanted != nullptr)
    std::ofstream(path.string() + ".totals")
        << resource.statistics().reserved_bytes << ' ' << resource.statistics().live_bytes;
  const std::string bytes = content(path);
  CHECK(bytes.starts_with("\x80\x02}"));
  CHECK(bytes.ends_with("u."));
  CHECK(count(bytes, "active_allocated") == 5);
  CHECK(count(bytes, "total_size") == 2);
  CHECK(count(bytes, "time_us") == 7);  // six operations are kept; a free has two entries
  CHECK_THROWS_WITH_AS(resource.dump_snapshot("/no/such/file"),
                       "/no/such/file: the snapshot cannot be written", InvalidArgument);
  for (const std::size_t i : {0, 1, 3, 4})
    resource.deallocate(blocks[i], 3 << 20, Category::gradient, SimulatedPages::stream(1));
  resource.deallocate(small, 100, Category::parameter, SimulatedPages::stream(1));
}

TEST_CASE("timeline: one page that holds every operation and lets no name out of its string") {
  const TemporaryFolder folder;
  Trace trace;
  trace.names.emplace_back("</script>\"\\");
  trace.allocate(1000, Category::activation, 0, 1);
  trace.free(trace.operations[0], 0);
  write_timeline(trace, folder.path / "t.html");
  const std::string page = content(folder.path / "t.html");
  CHECK(contains(page, "[1000,4,1],\n[-1000,4,1],\n"));
  CHECK(contains(page, R"("\u003c/script>\u0022\u005c")"));
  CHECK(count(page, "</script>") == 1);
  CHECK_FALSE(contains(page, "http"));
  CHECK_THROWS_WITH_AS(write_timeline(trace, "/no/such/t.html"),
                       "/no/such/t.html: the timeline cannot be written", InvalidArgument);
}
