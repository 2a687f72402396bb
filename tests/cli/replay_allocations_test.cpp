// ashlar replay-allocations as a user runs it.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "cli/desk.hpp"
#include "support/process.hpp"
#include "support/temporary_folder.hpp"

namespace {

const std::string kReplay = std::string(ASHLAR_PROGRAM) + " replay-allocations ";
const std::string kHeader = "Thread,Time,Action,Pointer,Size,Stream\n";

}  // namespace

TEST_CASE("replay-allocations: numbers as JSON, exit 0") {
  const TemporaryFolder folder;
  const auto file = folder.write("t.csv", kHeader +
                                              "1,0,allocate,0x10,4194304,0\n"
                                              "1,1,allocate,0x20,2097152,1\n"
                                              "1,2,free,0x10,4194304,1\n"
                                              "1,3,allocate,0x10,4194304,0\n");
  const Finished done =
      run(kReplay + file.string() + " --json --timeline " + (folder.path / "t.html").string());
  CHECK(done.code == 0);
  CHECK(done.err == "");
  const auto json = nlohmann::json::parse(done.out);
  CHECK(json["operations"] == 4);
  CHECK(json["peak_live_bytes"] == 6291456);
  CHECK(json["peak_reserved_bytes"] == 6291456);
  CHECK(json["fragmentation"] == 0);
  CHECK(json["failures"] == 0);
  CHECK(json["ns_per_operation"] > 0);
  CHECK(json.size() == 6);
  CHECK(std::filesystem::file_size(folder.path / "t.html") > 1000);
}

TEST_CASE("replay-allocations: what train_gpt --allocation-trace writes") {
  const cli::Desk desk;
  const Finished trained =
      run(desk.base() + "--ranks 2 --stage 3 --accumulate 2 --order layers --steps 2 --metrics " +
          desk.path("m.jsonl") + " --allocation-trace " + desk.path("t.csv"));
  CHECK(trained.code == 0);
  CHECK(trained.err == "");
  const Finished done = run(kReplay + desk.path("t.csv") + " --json");
  CHECK(done.code == 0);
  const auto json = nlohmann::json::parse(done.out);
  CHECK(json["failures"] == 0);
  std::int64_t counted = 0;
  const auto last = desk.metrics("m.jsonl").at(1);
  for (const auto& [key, bytes] : last["at_peak"].items())
    if (key != "fragmentation" && key != "padding") counted += bytes.get<std::int64_t>();
  CHECK(json["peak_live_bytes"] == counted);
  const Finished refused = run(desk.base() + "--steps 1 --allocation-trace /proc/none/t.csv");
  CHECK(refused.code == 2);
  CHECK(refused.err ==
        "train_gpt: --allocation-trace /proc/none/t.csv: cannot be written; name another place\n");
}

TEST_CASE("replay-allocations: an allocation that fails is named by its line, exit 1") {
  const TemporaryFolder folder;
  const auto file = folder.write("t.csv", kHeader +
                                              "1,0,allocate,0x10,2097152,0\n"
                                              "1,1,allocate,0x20,4194304,0\n");
  const Finished done = run(kReplay + file.string() + " --capacity 4MiB --json");
  CHECK(done.code == 1);
  CHECK(nlohmann::json::parse(done.out)["failures"] == 1);
  CHECK(contains(done.err, "1 of the allocations failed, the first on line 3: out of memory"));
}

TEST_CASE("replay-allocations: bad input is one line with its place, exit 2") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& rows, const std::string& said) {
    const auto file = folder.write("t.csv", kHeader + rows);
    const Finished done = run(kReplay + file.string());
    CAPTURE(done.err);
    CHECK(done.code == 2);
    CHECK(done.out == "");
    CHECK(done.err == "ashlar: " + file.string() + said + "\n");
  };
  refused("1,0,free,0x10,5,0\n", ":2: frees 0x10, which was never allocated");
  refused("1,0,allocate,0x10,5,0\n1,0,free,0x10,5,0\n1,0,free,0x10,5,0\n",
          ":4: frees 0x10, which was freed on line 3");
  refused("1,0,allocate,0x10,-5,0\n", ":2: Size '-5' is not a number of bytes");
  CHECK(run(kReplay).code == 2);
  CHECK(run(kReplay + "/no/such.csv").code == 2);
  CHECK(run(kReplay + "--synthetic nothing").code == 2);
  CHECK(run(kReplay + "--synthetic fsdp --capacity much").code == 2);
}
