// ashlar plan as a user runs it.
#include <doctest/doctest.h>

#include "cli/desk.hpp"
#include "cli/program.hpp"

namespace cli {
namespace {

const std::string kProgram = std::string(ASHLAR_PROGRAM) + " ";

}  // namespace

TEST_CASE("plan: quickest first, all fit, and their flags give the same bytes in a report") {
  const Json found =
      json_of(kProgram +
              "plan --model gpt3-1.3b --ranks 16 --global-batch 64 --tokens 1e9 --price 2 --top 4");
  REQUIRE(found["plans"].size() == 4);
  CHECK(found["candidates"] >= found["may_fit"]);
  double before = 0;
  for (const Json& plan : found["plans"]) {
    CHECK(plan["seconds_per_step"] >= before);
    before = plan["seconds_per_step"];
    CHECK(plan["peak_bytes"] <= found["device_bytes"]);
    CHECK(plan["least_bytes"] <= plan["peak_bytes"]);
    CHECK(plan["margin_bytes"] ==
          found["device_bytes"].get<std::int64_t>() - plan["peak_bytes"].get<std::int64_t>());
    const double hours = plan["days"].get<double>() * 24;
    CHECK(plan["dollars"] == doctest::Approx(hours * 16 * 2));
    CHECK(hours * 3600 == doctest::Approx(1e9 / (64 * 2048) * before));
    const Json report =
        json_of(kProgram + "report --ranks 16 --threads 1 " + plan["flags"].get<std::string>());
    CHECK(report["peak_bytes"]["total"] == plan["peak_bytes"]);
    CHECK(report["shard_group"] == plan["shard_group"]);
  }
}

TEST_CASE("plan: the largest model of a family, and one that does not fit") {
  const Json found = json_of(kProgram + "plan --largest gpt3 --ranks 8 --global-batch 8 --top 1");
  CHECK(found["model"] == "gpt3-13b");
  CHECK(found["plans"].size() == 1);
  const Finished none = run(kProgram + "plan --model megatron-1t --ranks 8 --json");
  CHECK(none.code == 1);
  CHECK(Json::parse(none.out)["plans"].empty());
}

TEST_CASE("plan: where the quick settings are too large, slower ones are found") {
  const std::string line = kProgram + "plan --model gpt3-6.7b --ranks 16 --reserve 55GiB --top ";
  const Json one = json_of(line + "1"), more = json_of(line + "20");
  REQUIRE(one["plans"].size() == 1);
  CHECK(one["plans"][0]["peak_bytes"] <= one["device_bytes"]);
  CHECK(more["plans"].size() > 1);
}

TEST_CASE("plan: fp16 plans as bf16 does, and names the program that takes its flags") {
  const std::string line =
      kProgram + "plan --model gpt3-1.3b --ranks 16 --global-batch 64 --top 1 --precision ";
  Json half = json_of(line + "fp16"), brain = json_of(line + "bf16");
  const Json &a = half["plans"][0], &b = brain["plans"][0];
  for (const char* key : {"peak_bytes", "least_bytes", "seconds_per_step", "stage", "batch"})
    CHECK(a[key] == b[key]);
  CHECK(contains(a["flags"].get<std::string>(), "--precision fp16"));
  const Finished text = run(line + "fp16");
  CHECK(contains(text.out, "ashlar report --model"));
  CHECK(!contains(text.out, "train_gpt"));
}

TEST_CASE("plan: bad input is one line and exit 2") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"--model gpt9", "gpt2"},
      {"--cluster dgx-a10", "dgx-a100"},
      {"--global-batch 9", "multiple"},
      {"--largest opt", "no model"},
      {"--seq 5000", "positions"},
      {"--tensor-parallel 2", "not supported"},
      {"--pipeline-parallel 2", "not supported"},
      {"--expert-parallel 8", "not supported"},
      {"--tokens nan", "--tokens"},
      {"--mtbf 0.001 --tokens 1e9 --global-batch 8", "--mtbf"},
      {"--price 2", "--tokens"},
      {"--grid 1", "--tokens"},
      {"--checkpoint 60", "--mtbf"},
      {"--largest gpt3 --model gpt2", "--model"},
      {"--ranks 12", "12"}};
  for (const auto& [flags, says] : cases) {
    CAPTURE(flags);
    const Finished done = run(kProgram + "plan " + flags);
    CAPTURE(done.err);
    CHECK(done.code == 2);
    CHECK(std::ranges::count(done.err, '\n') == 1);
    CHECK(done.err.find(says) != std::string::npos);
  }
}

}  // namespace cli
