// ashlar simulate as a user runs it: outputs, exit codes, one line for what cannot be used.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/program.hpp"
#include "support/temporary_folder.hpp"

using cli::check_refused;
using cli::json_of;
using cli::text_of;

namespace {

using Json = nlohmann::json;

const std::string kSimulate = std::string(ASHLAR_PROGRAM) + " simulate ";
const std::string kSmall = kSimulate + "--model tiny --batch 1 --seq 64 ";

/// Whether rank 0's trace shows one collective that begins before another ends; never on a thread.
bool two_collectives_at_once(const std::string& line) {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder.path / "trace.json";
  json_of(line + " --trace-ranks 0 --trace " + file.string());
  using Flights = std::vector<std::pair<double, double>>;
  Flights flights;
  std::map<int, Flights> by_thread;
  const Json trace = Json::parse(text_of(file));
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    const double begin = event["ts"], end = begin + event["dur"].get<double>();
    by_thread[event["tid"].get<int>()].emplace_back(begin, end);
    if (event["cat"] == "collective") flights.emplace_back(begin, end);
  }
  const auto overlap = [](Flights& list) {
    std::ranges::sort(list);
    constexpr double kRounding = 1e-5;  // microseconds
    return std::ranges::adjacent_find(list, [](const auto& a, const auto& b) {
             return b.first < a.second - kRounding;
           }) != list.end();
  };
  for (auto& [thread, list] : by_thread) CHECK_FALSE(overlap(list));  // viewers need it so
  return overlap(flights);
}

}  // namespace

TEST_CASE("simulate: JSON with the keys that scripts rely on") {
  const Json json = json_of(kSmall + "--ranks 16 --cluster dgx-h100");
  for (const char* key :
       {"seconds_per_step", "tokens_per_second_per_rank", "mfu", "hfu",
        "exposed_communication_seconds", "peak_bytes_per_rank", "energy_joules", "ranks", "events"})
    CHECK(json.at(key).is_number());
  CHECK(json["ranks"] == 16);
  CHECK(json["tokens_per_second_per_rank"].get<double>() ==
        doctest::Approx(64 / json["seconds_per_step"].get<double>()));
  CHECK(json["events"].get<std::int64_t>() % 16 == 0);
  double parts = 0;
  for (const char* key : {"product", "attention", "memory", "update", "slowed", "input_copies",
                          "exposed_all_gather", "exposed_reduce_scatter", "exposed_all_reduce"})
    parts += json["breakdown_seconds"][key].get<double>();
  CHECK(parts == doctest::Approx(json["seconds_per_step"].get<double>()).epsilon(1e-6));
}

TEST_CASE("simulate: ranks kept apart print the same numbers") {
  const TemporaryFolder folder;
  std::string factors;
  for (int r = 0; r < 16; ++r) factors += r % 3 == 0 ? "1.5\n" : "1\n";
  for (const std::string& stragglers :
       {std::string(), std::string("--stragglers 3x1.25 "),
        "--stragglers " + folder.write("factors", factors).string() + " "}) {
    Json collapsed = json_of(kSmall + "--ranks 16 " + stragglers);
    Json apart = json_of(kSmall + "--ranks 16 --no-collapse " + stragglers);
    CHECK(apart["classes"] == 16);
    CHECK(collapsed["classes"] == (stragglers.empty() ? 1 : 2));
    collapsed.erase("classes");
    apart.erase("classes");
    CHECK(collapsed == apart);
  }
}

TEST_CASE("simulate: the peak is the report's") {
  for (const char* flags :
       {"--ranks 1 --precision bf16", "--ranks 2 --precision bf16 --threads 3"}) {
    const std::string step = std::string("--model tiny --batch 4 --seq 64 ") + flags;
    CHECK(json_of(kSimulate + step)["peak_bytes_per_rank"] ==
          json_of(std::string(ASHLAR_PROGRAM) + " report " + step)["peak_bytes"]["total"]);
  }
}

TEST_CASE("simulate: fp16 takes bf16's time and bytes") {
  CHECK(json_of(kSmall + "--ranks 16 --precision fp16 --cluster dgx2-v100") ==
        json_of(kSmall + "--ranks 16 --precision bf16 --cluster dgx2-v100"));
}

TEST_CASE("simulate: stragglers cost what they are slower, on one rank exactly, but for copies") {
  const Json even = json_of(kSmall + "--ranks 1"),
             late = json_of(kSmall + "--ranks 1 --stragglers 1x2");
  const double copies = even["breakdown_seconds"]["input_copies"];
  CHECK(late["seconds_per_step"].get<double>() ==
        doctest::Approx(2 * even["seconds_per_step"].get<double>() - copies).epsilon(1e-6));
}

TEST_CASE("simulate: reductions beside gathers share the links, collapsed or not") {
  const std::string line = kSmall + "--ranks 64 --stage 3 --accumulate 2 --stragglers 3x1.2 ";
  Json shared = json_of(line + "--comm-streams 2");
  Json apart = json_of(line + "--comm-streams 2 --no-collapse");
  const Json queued = json_of(line + "--comm-streams 1");
  CHECK(queued == json_of(line));
  const std::string large = kSimulate + "--model gpt2 --batch 1 --seq 64 --ranks 64 ";
  CHECK_FALSE(two_collectives_at_once(large));
  CHECK(two_collectives_at_once(large + "--comm-streams 2"));
  CHECK(shared["communication_seconds"].get<double>() ==
        doctest::Approx(queued["communication_seconds"].get<double>()).epsilon(1e-6));
  shared.erase("classes");
  apart.erase("classes");
  CHECK(shared == apart);
}

TEST_CASE("simulate: stragglers and jitter by a distribution, the seed decides") {
  const std::string line = kSmall + "--ranks 64 --stragglers exponential:0.1 ";
  Json drawn = json_of(line + "--seed 3"), apart = json_of(line + "--seed 3 --no-collapse");
  CHECK(drawn["stragglers"] == "exponential:0.1");
  CHECK(drawn["seed"] == 3);
  CHECK(drawn["seconds_per_step"].get<double>() >
        json_of(kSmall + "--ranks 64")["seconds_per_step"].get<double>());
  CHECK(json_of(line + "--seed 4")["seconds_per_step"] != drawn["seconds_per_step"]);
  CHECK(json_of(line + "--seed 3") == drawn);
  drawn.erase("classes");
  apart.erase("classes");
  CHECK(drawn == apart);
  const Json noisy = json_of(kSmall + "--ranks 64 --jitter lognormal:0.1");
  CHECK(noisy["classes"] == 64);
  CHECK(noisy["jitter"] == "lognormal:0.1");
  CHECK(json_of(kSmall + "--ranks 64 --jitter 0.1")["seconds_per_step"] ==
        json_of(kSmall + "--ranks 64 --jitter normal:0.1")["seconds_per_step"]);
  const Finished text = run(kSmall + "--ranks 64 --jitter 0.1 --seed 2");
  CHECK(contains(text.out, "each rank is a class of its own"));
}

TEST_CASE("simulate: a trace for Chrome, a sweep as CSV and SVG") {
  const TemporaryFolder folder;
  const std::string trace = folder.path / "trace.json", svg = folder.path / "sweep.svg";
  const std::string csv = folder.path / "sweep.csv";
  const Json result =
      json_of(kSmall + "--ranks 8 --stragglers 2x1.5 --trace-ranks 0,7,6 --trace " + trace);
  const Json events = Json::parse(text_of(trace))["traceEvents"];
  double end = 0;
  std::set<int> processes;
  for (const Json& event : events) {
    processes.insert(event["pid"].get<int>());
    if (event["ph"] == "X")
      end = std::max(end, event["ts"].get<double>() + event["dur"].get<double>());
  }
  CHECK(processes.size() == 2);
  CHECK(end * 1e-6 == doctest::Approx(result["seconds_per_step"].get<double>()).epsilon(1e-6));

  const Finished swept = run(kSmall + "--sweep ranks=4..100 --csv " + csv + " --svg " + svg);
  CHECK(swept.code == 2);  // 100 ranks leave a node half full
  const Finished whole = run(kSmall + "--sweep ranks=4..96 --csv " + csv + " --svg " + svg);
  REQUIRE(whole.code == 0);
  CHECK(whole.out == text_of(csv));
  CHECK(std::ranges::count(whole.out, '\n') == 7);  // header, 4, 8, 16, 32, 64, 96
  CHECK(text_of(svg).starts_with("<svg"));
}

TEST_CASE("simulate: each micro-batch's inputs are copied from the host before its kernels") {
  const TemporaryFolder folder;
  const std::string trace = folder.path / "trace.json";
  const Json json = json_of(kSmall + "--ranks 8 --accumulate 3 --trace " + trace);
  // Tokens and targets of 64 i32, at 0.8 of 31.5 GB/s, each after 10 us.
  CHECK(json["breakdown_seconds"]["input_copies"].get<double>() ==
        doctest::Approx(3 * 2 * (10e-6 + 256 / (0.8 * 31.5e9))).epsilon(1e-6));
  int copies = 0;
  const Json events = Json::parse(text_of(trace))["traceEvents"];
  std::vector<std::pair<double, double>> copied;
  for (const Json& event : events)
    if (event["ph"] == "X" && event["cat"] == "copy") {
      const double begin = event["ts"];
      copied.emplace_back(begin, begin + event["dur"].get<double>());
    }
  for (const auto& [begin, end] : copied) {
    ++copies;
    for (const Json& event : events) {
      if (event["ph"] != "X" || event["tid"] != 0) continue;
      const double at = event["ts"], until = at + event["dur"].get<double>();
      CHECK((until <= begin + 1e-6 || at >= end - 1e-6));
    }
  }
  CHECK(copies == 3);
  CHECK(json_of(kSmall + "--cluster cpu")["breakdown_seconds"]["input_copies"] == 0);
}

TEST_CASE("simulate: groups of a node gather without the network") {
  const std::string line = kSimulate +
                           "--model gpt3-13b --precision bf16 --batch 1 --seq 2048 --ranks 512 "
                           "--cluster dgx-a100 --recompute per-unit --accumulate 8 ";
  const Json all = json_of(line), same = json_of(line + "--shard-group 512");
  CHECK(all == same);
  const Json node = json_of(line + "--shard-group 8");
  CHECK(node["peak_bytes_per_rank"] > all["peak_bytes_per_rank"]);
  CHECK(node["link_use"]["network"] < all["link_use"]["network"]);
  CHECK(node["communication_seconds"] < all["communication_seconds"]);
  CHECK(node["ranks"] == 512);
}

TEST_CASE("simulate: unequal ranks in groups, collapsed or not") {
  const std::string line = kSmall + "--ranks 64 --shard-group 8 --accumulate 2 ";
  const auto seconds = [](const Json& json) { return json["seconds_per_step"].get<double>(); };
  const Json even = json_of(line);
  CHECK(seconds(json_of(line + "--stragglers 64x1")) == seconds(even));
  for (const char* late : {"--stragglers 1x1.5 ", "--stragglers 11x1.25 --comm-streams 2 ",
                           "--stragglers exponential:0.1 --seed 3 "}) {
    Json collapsed = json_of(line + late), apart = json_of(line + late + "--no-collapse");
    CHECK(seconds(collapsed) > seconds(even));
    CHECK(apart["classes"] == 64);
    collapsed.erase("classes");
    apart.erase("classes");
    CHECK(collapsed == apart);
  }
  const TemporaryFolder folder;
  const std::string trace = folder.path / "trace.json";
  const Json one = json_of(line + "--stragglers 1x1.5 --trace-ranks 0,7,56,63 --trace " + trace);
  CHECK(one["classes"] == 4);  // late, of its group, of its place in other groups, the others
  double parts = 0;
  for (const auto& [key, value] : one["breakdown_seconds"].items()) parts += value.get<double>();
  CHECK(parts == doctest::Approx(seconds(one)).epsilon(1e-6));
  std::set<int> processes;
  const Json events = Json::parse(text_of(trace))["traceEvents"];
  for (const Json& event : events) processes.insert(event["pid"].get<int>());
  CHECK(processes.size() == 4);
  const Json noisy = json_of(line + "--jitter 0.1");
  CHECK(noisy["classes"] == 64);
  CHECK(seconds(noisy) > seconds(even));
}

TEST_CASE("simulate: what cannot be used is refused in one line") {
  const TemporaryFolder folder;
  check_refused(kSimulate + "--model gpt2-xll", "gpt2-xl");
  check_refused(kSmall + "--cluster dgx-b1", "dgx-");
  check_refused(kSmall + "--cluster " + folder.write("c.json", "{}").string(), "has no 'name'");
  check_refused(kSmall + "--ranks 12", "multiple of 8");
  check_refused(kSmall + "--ranks 8 --accumulate 250000000 --no-collapse", "moves of clocks");
  check_refused(kSmall + "--ranks 8 --accumulate 17179869184 --stragglers 8x1000", "days");
  check_refused(kSmall + "--ranks 0", "--ranks");
  check_refused(kSmall + "--ranks 16 --shard-group 3", "divide the 16");
  check_refused(kSmall + "--ranks 24 --shard-group 3", "multiple of the other");
  check_refused(kSmall + "--stage 4", "--stage");
  check_refused(kSmall + "--collective star", "auto, ring");
  check_refused(kSmall + "--ranks 8 --stragglers 9x2", "0 to 8 ranks");
  check_refused(kSmall + "--ranks 8 --stragglers 1x0", "0.1 to 1000");
  check_refused(kSmall + "--ranks 8 --stragglers " + folder.write("few", "1\n2\n").string(),
                "2 lines");
  check_refused(kSmall + "--ranks 1 --stragglers " + folder.write("bad", "fast\n").string(),
                "line 1");
  check_refused(kSmall + "--stragglers lognormal:7", "S from 0 to 1");
  check_refused(kSmall + "--stragglers gauss:1", "a distribution such as");
  check_refused(kSmall + "--jitter gauss:1", "--jitter gauss:1");
  check_refused(kSmall + "--jitter 2", "S from 0 to 1");
  check_refused(kSmall + "--comm-streams 3", "1 or 2");
  check_refused(kSmall + "--seed 3", "--seed is of");
  check_refused(kSmall + "--sweep 1-8", "ranks=FIRST..LAST");
  check_refused(kSmall + "--svg a.svg", "--sweep");
  check_refused(kSmall + "--sweep ranks=8..16 --ranks 8", "--ranks");
  check_refused(kSmall + "--sweep ranks=8..16 --trace t.json", "--trace");
  check_refused(kSmall + "--sweep ranks=8..2000000", "1048576 or less");
  check_refused(kSmall + "--ranks 2000000 --no-collapse", "1048576 or less");
  check_refused(kSmall + "--trace-ranks 0", "--trace");
  for (const char* flag : {"--tensor-parallel", "--pipeline-parallel", "--expert-parallel"})
    check_refused(kSmall + flag + " 2", "not supported");
  check_refused(kSmall + "--ranks 8 --trace /nowhere/t.json", "cannot be written");
  check_refused(kSmall + "--ranks 8 --trace t.json --trace-ranks 8", "0 to 7");
}
