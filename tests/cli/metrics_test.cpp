// The lines of --metrics: their keys are an interface, their sums must hold.
#include <doctest/doctest.h>

#include <cmath>

#include "cli/desk.hpp"

namespace cli {
namespace {

std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  return names;
}

std::vector<std::string> sorted(const std::string& line) {
  Words names = words(line);
  std::ranges::sort(names);
  return names;
}

const std::string kCategories =
    "parameter gradient optimizer_state gathered_parameter activation communication workspace "
    "input ";

std::int64_t sum(const Json& object) {
  std::int64_t total = 0;
  for (const auto& [name, bytes] : object.items()) total += bytes.get<std::int64_t>();
  return total;
}

}  // namespace

TEST_CASE("metrics: the keys of a step and of the summary") {
  const Desk desk;
  const Finished finished =
      run(desk.base() + "--steps 4 --ranks 2 --validate-every 2 --metrics " + desk.path("m.jsonl"));
  REQUIRE_MESSAGE(finished.code == 0, finished.err);
  const auto lines = desk.metrics("m.jsonl");
  REQUIRE(lines.size() == 5);
  const std::string step =
      "step loss loss_bits grad_norm learning_rate tokens tokens_per_second flops seconds "
      "peak_bytes at_peak sent_bytes replayed ";
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(keys(lines[i]) == sorted(i % 2 == 1 ? step + "validation_loss" : step));
    CHECK(lines[i]["step"] == i + 1);
    CHECK(lines[i]["tokens"] == 64);
    CHECK(keys(lines[i]["seconds"]) ==
          sorted("total forward backward communication_exposed update"));
    CHECK(keys(lines[i]["peak_bytes"]) == sorted(kCategories + "total"));
    CHECK(keys(lines[i]["at_peak"]) == sorted(kCategories + "fragmentation padding"));
    CHECK(keys(lines[i]["sent_bytes"]) ==
          sorted("all_gather reduce_scatter all_reduce broadcast other"));
    CHECK(lines[i]["learning_rate"] == doctest::Approx(0.003));
  }
  REQUIRE(keys(lines[4]) == Words{"summary"});
  const Json& summary = lines[4]["summary"];
  CHECK(keys(summary) ==
        sorted("parameters ranks stage precision model_state_bytes planned_peak_bytes "
               "outside_bytes peak_resident_bytes config hardware"));
  CHECK(keys(summary["model_state_bytes"]) == sorted("parameter gradient optimizer_state"));
  CHECK(keys(summary["planned_peak_bytes"]) == sorted(kCategories + "total"));
  CHECK(summary["ranks"] == 2);
  CHECK(summary["stage"] == 3);
  CHECK(summary["hardware"]["device"] == "cpu");
  CHECK(summary["peak_resident_bytes"].get<std::int64_t>() > 0);
}

TEST_CASE("metrics: times are parts of the step's, and what is outside the arenas is there") {
  const Desk desk;
  for (const int ranks : {1, 2}) {
    const Finished finished = run(fmt::format("{} --steps 5 --ranks {} --metrics {}", desk.base(),
                                              ranks, desk.path("m.jsonl")));
    REQUIRE_MESSAGE(finished.code == 0, finished.err);
    const auto lines = desk.metrics("m.jsonl");
    REQUIRE(lines.size() == 6);
    for (std::size_t i = 0; i < 5; ++i) {
      const double total = lines[i]["seconds"]["total"].get<double>();
      double parts = -total;
      for (const auto& [part, value] : lines[i]["seconds"].items()) {
        CAPTURE(part);
        const double seconds = value.get<double>();
        CHECK(seconds >= 0);
        CHECK(seconds <= total);
        parts += seconds;
      }
      if (ranks == 1) CHECK(parts <= total);  // of more, each part is the slowest rank's
      CHECK(lines[i]["seconds"]["forward"] > 0);
      CHECK(lines[i]["seconds"]["backward"] > 0);
      CHECK(lines[i]["seconds"]["update"] > 0);
      CHECK(lines[i]["tokens_per_second"].get<double>() ==
            doctest::Approx(lines[i]["tokens"].get<double>() / total).epsilon(1e-9));
    }
    const Json& summary = lines[5]["summary"];
    CHECK(summary["outside_bytes"] >= 0);
    CHECK(summary["outside_bytes"] < summary["peak_resident_bytes"]);
  }
}

TEST_CASE("metrics: what a step held sums up and is what the plan said") {
  const Desk desk;
  for (const int ranks : {1, 2, 3}) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const std::string precision : {"fp32", "bf16"}) {
        for (const int accumulate : {1, 2}) {
          const std::string line = fmt::format(
              "{} --steps 2 --sample 2 --validation 0.1 --ranks {} --stage {} --precision {} "
              "--accumulate {} --metrics {}",
              desk.loud(), ranks, stage, precision, accumulate, desk.path("m.jsonl"));
          CAPTURE(line);
          const Finished finished = run(line);
          REQUIRE_MESSAGE(finished.code == 0, finished.err);
          const auto lines = desk.metrics("m.jsonl");
          REQUIRE(lines.size() == 3);
          for (std::size_t i = 0; i < 2; ++i) {
            CHECK(sum(lines[i]["at_peak"]) == lines[i]["peak_bytes"]["total"]);
            CHECK(lines[i]["peak_bytes"] == lines[2]["summary"]["planned_peak_bytes"]);
          }
        }
      }
    }
  }
}

TEST_CASE("metrics: the plan says what a step held, where evaluation or sampling is higher") {
  const Desk desk;
  const std::string base = fmt::format("{} --model tiny --seq 32 --batch 1 --steps 1 --metrics {} ",
                                       kTrainGpt, desk.path("m.jsonl"));
  const std::string text = "--text " + desk.path("text.txt");
  std::vector<std::int64_t> totals;
  for (const std::string& how :
       {std::string("--synthetic"), text + " --validation 0.1", text + " --sample 1",
        text + " --validation 0.1 --sample 1 --ranks 2", text + " --quiet --sample 1"}) {
    CAPTURE(how);
    const Finished finished = run(base + how);
    REQUIRE_MESSAGE(finished.code == 0, finished.err);
    const auto lines = desk.metrics("m.jsonl");
    REQUIRE(lines.size() == 2);
    CHECK(sum(lines[0]["at_peak"]) == lines[0]["peak_bytes"]["total"]);
    CHECK(lines[0]["peak_bytes"] == lines[1]["summary"]["planned_peak_bytes"]);
    totals.push_back(lines[0]["peak_bytes"]["total"].get<std::int64_t>());
  }
  CHECK(totals[1] > totals[0]);   // else this case shows nothing
  CHECK(totals[4] == totals[0]);  // what is not asked for takes no memory
}

TEST_CASE("metrics: the validation loss depends on neither ranks nor batch") {
  const Desk desk;
  const std::string line =
      fmt::format("{} --model {} --text {} --seq 16 --validation 0.1 --threads 1 --quiet ",
                  kTrainGpt, desk.path("config.json"), desk.path("text.txt"));
  const Finished trained =
      run(fmt::format("{} --lr 0.01 --steps 30 --save {}", line, desk.path("trained")));
  REQUIRE_MESSAGE(trained.code == 0, trained.err);
  std::vector<double> losses;
  for (const int ranks : {1, 2, 3}) {
    for (const int batch : {1, 2, 5, 64}) {
      const Finished finished =
          run(fmt::format("{} --lr 0 --steps 31 --resume {} --ranks {} --batch {} --metrics {}",
                          line, desk.path("trained"), ranks, batch, desk.path("m.jsonl")));
      REQUIRE_MESSAGE(finished.code == 0, finished.err);
      losses.push_back(desk.steps<double>("m.jsonl", "validation_loss").back());
      CAPTURE(ranks);
      CAPTURE(batch);
      CHECK(std::abs(losses.back() - losses.front()) < 1e-5);
    }
  }
  CHECK(losses.front() < 4);  // it has learnt, so windows differ
}

TEST_CASE("metrics: the loss on real text starts within 0.2 of ln(256)") {
  const Desk desk;
  const std::string real = std::string(ASHLAR_TEST_DIR) + "/cli";  // these sources
  for (const std::string how : {"--model tiny --ranks 2 --seed 1", "--model small --seed 2",
                                "--model tiny --precision bf16 --seed 3"}) {
    CAPTURE(how);
    const Finished finished =
        run(fmt::format("{} {} --text {} --seq 64 --batch 4 --steps 1 --quiet --metrics {}",
                        kTrainGpt, how, real, desk.path("m.jsonl")));
    REQUIRE_MESSAGE(finished.code == 0, finished.err);
    CHECK(std::abs(desk.metrics("m.jsonl")[0]["loss"].get<double>() - std::log(256.0)) < 0.2);
  }
}

TEST_CASE("metrics: --threads is by default the cores of the node by the ranks of the node") {
  const Desk desk;
  const std::string line = fmt::format("{} --model {} --synthetic --seq 8 --steps 0 --quiet ",
                                       kTrainGpt, desk.path("config.json"));
  const auto threads = [&](const std::string& command) {
    const Finished finished = run(command);
    REQUIRE_MESSAGE(finished.code == 0, finished.err);
    return desk.metrics("m.jsonl").back()["summary"]["config"]["threads"].get<int>();
  };
  const std::string file = "--metrics " + desk.path("m.jsonl");
  const int cores = threads(line + file);
  CHECK(threads(line + file + " --ranks 2") == std::max(1, cores / 2));
  CHECK(threads("taskset -c 0 " + line + file) == 1);
  CHECK(threads(line + file + " --threads 3") == 3);
  if (!has_mpi()) return;
  CHECK(threads(mpiexec(2) + line + file) == std::max(1, cores / 2));
  // Two nodes with one rank each, then with two and one: all take what the fuller one allows.
  const auto on = [&](int ranks, const char* node) {
    return fmt::format("-n {} env ASHLAR_HOST={} {}{} ", ranks, node, line, file);
  };
  const std::string launcher = std::string(ASHLAR_MPIEXEC) + " ";
  CHECK(threads(launcher + on(1, "a") + ": " + on(1, "b")) == cores);
  CHECK(threads(launcher + on(2, "a") + ": " + on(1, "b")) == std::max(1, cores / 2));
}

}  // namespace cli
