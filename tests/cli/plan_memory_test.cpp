// ashlar plan-memory as a user runs it: outputs, exit codes, one line for what cannot be used.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.hpp"
#include "support/temporary_folder.hpp"

using cli::check_refused;
using cli::text_of;

namespace {

const std::string kPlan = std::string(ASHLAR_PROGRAM) + " plan-memory ";
const std::string kRows = "b1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n";
const std::string kExample = "id,lower,upper,size\n" + kRows;

}  // namespace

TEST_CASE("plan-memory: JSON, offsets, a drawing") {
  const TemporaryFolder folder;
  const std::string file = folder.write("in.csv", kExample);
  const std::string out = folder.path / "out.csv", svg = folder.path / "out.svg";
  const Finished finished = run(kPlan + file + " --json --output " + out + " --svg " + svg);
  CHECK(finished.code == 0);
  const auto json = nlohmann::json::parse(finished.out);
  CHECK(json["buffers"] == 5);
  CHECK(json["capacity"].is_null());
  CHECK(json["height"] == 12);
  CHECK(json["lower_bound"] == 12);
  CHECK(json["proved_optimal"] == true);
  CHECK(json["seconds"].is_number());

  std::istringstream rows(text_of(out)), given(kRows);
  std::string row, input;
  std::getline(rows, row);
  CHECK(row == "id,lower,upper,size,offset");
  while (std::getline(given, input)) {
    REQUIRE(std::getline(rows, row));
    CHECK(row.starts_with(input + ","));
  }
  const std::string drawing = text_of(svg);
  CHECK(drawing.starts_with("<svg"));
  CHECK(contains(drawing, "b4: 4 B (4 bytes) at "));
  CHECK(contains(drawing, "proved optimal"));
}

TEST_CASE("plan-memory: capacity and time limit") {
  const TemporaryFolder folder;
  const std::string file = folder.write("in.csv", kExample);
  CHECK(run(kPlan + file + " --capacity 12").code == 0);
  const auto json = nlohmann::json::parse(run(kPlan + file + " --json --capacity 13").out);
  CHECK(json["capacity"] == 13);
  CHECK(json["height"] <= 13);
  CHECK(run(kPlan + file + " --time-limit 0").code == 0);
  check_refused(kPlan + file + " --capacity 11", "too small by 1 bytes");
}

TEST_CASE("plan-memory: a capacity that no plan keeps within") {
  const TemporaryFolder folder;
  // The load is 5; the lowest plan is 6.
  const std::string file = folder.write("in.csv",
                                        "id,lower,upper,size\na,2,5,1\nb,4,7,3\nc,1,5,1\nd,1,4,1\n"
                                        "e,0,1,2\nf,0,2,3\ng,5,6,2\n");
  const Finished lowest = run(kPlan + file + " --json");
  const auto json = nlohmann::json::parse(lowest.out);
  CHECK(lowest.code == 0);
  CHECK(json["proved_optimal"] == true);
  CHECK(json["height"] == 6);
  const Finished finished = run(kPlan + file + " --capacity 5");
  CHECK(finished.code == 1);
  CHECK(contains(finished.err, "needs 1 bytes more"));
}

TEST_CASE("plan-memory: a drawing has few ticks, wherever in time its buffers lie") {
  const TemporaryFolder folder;
  const std::string svg = folder.path / "out.svg";
  for (const std::string lifetime :
       {"9000000000000000000,9000000000000002048", "-9223372036854775808,9223372036854775807",
        "-7,-6", "9223372036854775806,9223372036854775807", "0,1"}) {
    CAPTURE(lifetime);
    const std::string file =
        folder.write("in.csv", "id,lower,upper,size\na," + lifetime + ",4611686018427387903\n");
    const Finished finished = run(kPlan + file + " --svg " + svg);
    CHECK(finished.code == 0);
    const std::string drawing = text_of(svg);
    std::size_t ticks = 0;
    for (auto at = drawing.find("class=\"grid\""); at != std::string::npos; ++ticks)
      at = drawing.find("class=\"grid\"", at + 1);
    CHECK(ticks >= 4);
    CHECK(ticks <= 26);
    CHECK(!contains(drawing, "nan"));
  }
}

TEST_CASE("plan-memory: bad input") {
  const TemporaryFolder folder;
  const std::string header = "id,lower,upper,size\n";
  check_refused(kPlan + "missing.csv", "missing.csv: No such file");
  check_refused(kPlan + folder.path.string(), "cannot be read");
  check_refused(kPlan, "file is required");
  check_refused(kPlan + folder.write("a.csv", kExample).string() + " --capacity -5", "--capacity");
  check_refused(kPlan + folder.write("a.csv", kExample).string() + " --output /nowhere/x",
                "/nowhere/x");
  check_refused(kPlan + folder.write("b.csv", header + "a,0,1\n").string(), "line 2 has 3 fields");
  check_refused(kPlan + folder.write("c.csv", header + "a,0,1,2\na,0,1,2\n").string(),
                "line 3 repeats the id 'a'");
  check_refused(kPlan + folder.write("d.csv", header + "a,0,1,-2\n").string(), "negative size");
  check_refused(kPlan + folder.write("e.csv", header + "a,4,1,2\n").string(), "not above");
  check_refused(kPlan + folder.write("f.csv", header + "a,4,5\r6,2\n").string(), "'5\\x0d6'");
  const std::string most = "9000000000000000000\n";
  check_refused(
      kPlan +
          folder.write("g.csv", header + "a,0,1," + most + "b,0,1," + most + "c,0,1," + most)
              .string() +
          " --capacity 100",
      "more than 2^62 bytes");
  const std::string good = kPlan + folder.write("a.csv", kExample).string();
  for (const std::string seconds : {"nan", "-1", "-nan", "soon"})
    check_refused(good + " --time-limit " + seconds, "--time-limit: '" + seconds + "'");
  check_refused(good + " --capacity 0", "--capacity: '0'");
  check_refused(good + " --capacity 9223372036854775808", "--capacity");
}
