// A run that is stopped and resumed ends where the uninterrupted one does.
#include <doctest/doctest.h>

#include <cmath>

#include "cli/desk.hpp"

namespace cli {

TEST_CASE("resume: at the same world the losses are the uninterrupted run's to the bit") {
  const Desk desk;
  for (const std::string how : {"--ranks 1 --stage 0", "--ranks 3 --stage 3 --freeze wpe",
                                "--ranks 2 --stage 1", "--ranks 3 --stage 2 --precision bf16",
                                "--ranks 2 --stage 3 --precision bf16 --accumulate 2"}) {
    CAPTURE(how);
    const std::string line = desk.base() + "--dropout 0.1 --warmup 3 --clip 1 " + how;
    const auto whole = desk.bits(line + " --steps 20");
    REQUIRE(whole.size() == 20);
    CHECK(desk.bits(line + " --steps 10 --save " + desk.path("half")).size() == 10);
    CHECK(desk.bits(line + " --steps 20 --resume " + desk.path("half")) == whole);
  }
}

TEST_CASE("resume: another world, stage and transport continue with the losses to 1e-4") {
  const Desk desk;
  const auto line = [&](int ranks, const std::string& how) {
    return fmt::format("{} --batch {} --dropout 0.1 --clip 1 --metrics {} {}", desk.base(),
                       12 / ranks, desk.path("m.jsonl"), how);
  };
  REQUIRE(run(line(1, "--steps 20")).code == 0);
  const auto whole = desk.steps<double>("m.jsonl", "loss");
  for (const auto& [first, second] : {std::pair{1, 3}, std::pair{3, 2}, std::pair{4, 1}}) {
    CAPTURE(first);
    const Finished half = run(line(
        first, fmt::format("--steps 10 --stage 3 --ranks {} --save {}", first, desk.path("half"))));
    REQUIRE_MESSAGE(half.code == 0, half.err);
    const std::string rest = "--steps 20 --stage 1 --resume " + desk.path("half");
    const Finished resumed =
        run(has_mpi() ? mpiexec(second) + line(second, rest)
                      : line(second, fmt::format("{} --ranks {}", rest, second)));
    REQUIRE_MESSAGE(resumed.code == 0, resumed.err);
    const auto losses = desk.steps<double>("m.jsonl", "loss");
    REQUIRE(losses.size() == 20);
    for (std::size_t i = 0; i < losses.size(); ++i)
      CHECK(std::abs(losses[i] - whole[i]) <= 1e-4 * whole[i]);
  }
}

TEST_CASE("resume: SIGTERM saves after the step and ends well; the rest has the same bits") {
  const Desk desk;
  const std::string line = desk.base() + "--dropout 0.1 --schedule cosine --steps 400";
  for (const int ranks : {1, 3}) {
    for (const bool mpi : {false, true}) {
      if (mpi && !has_mpi()) continue;
      CAPTURE(ranks);
      CAPTURE(mpi);
      const std::string ranked =
          mpi ? mpiexec(ranks) + line : line + fmt::format(" --ranks {}", ranks);
      const auto whole = desk.bits(ranked);
      REQUIRE(whole.size() == 400);
      const std::string files =
          fmt::format(" --metrics {} --save {}", desk.path("m.jsonl"), desk.path("stopped"));
      std::filesystem::remove(desk.path("m.jsonl"));
      Process stopped(words(ranked + files));
      desk.await_steps("m.jsonl", 20);
      // One rank is told; under a launcher it may be any.
      ::kill(mpi ? rank_process(stopped, ranks - 1) : stopped.pid(), SIGTERM);
      const Finished ended = stopped.wait();
      CHECK(ended.code == 0);
      CHECK(ended.err == "");
      const auto before = desk.steps<std::string>("m.jsonl", "loss_bits").size();
      CHECK(before >= 20);
      CHECK(before < 400);
      REQUIRE(run(ranked + files + " --resume " + desk.path("stopped")).code == 0);
      CHECK(desk.steps<std::string>("m.jsonl", "loss_bits") == whole);
    }
  }
}

TEST_CASE("resume: SIGTERM skips validation, and --quiet skips samples") {
  const Desk desk;
  const std::string line = fmt::format(
      "{} --ranks 2 --steps 100000 --validate-every 1 --sample 1000000000 --save {} "
      "--metrics {} ",
      desk.base(), desk.path("saved"), desk.path("m.jsonl"));
  Process stopped(words(line));
  desk.await_steps("m.jsonl", 5);
  ::kill(stopped.pid(), SIGTERM);
  CHECK(stopped.wait().code == 0);
  const std::size_t steps = desk.steps<int>("m.jsonl", "step").size();
  CHECK(desk.steps<double>("m.jsonl", "validation_loss").size() == steps - 1);
  const std::string resume =
      fmt::format("{} --sample 1000000000 --resume {} ", desk.base(), desk.path("saved"));
  CHECK(run(resume + fmt::format("--steps {}", steps)).out ==
        fmt::format("checkpoint is at step {0}, nothing to do with --steps {0}\n", steps));
  CHECK(run(resume + fmt::format("--steps {}", steps + 1)).out == "");
}

TEST_CASE("resume: --save-every keeps a checkpoint that is whole, whenever the run is killed") {
  const Desk desk;
  const std::string line = desk.base() + "--ranks 2 --steps 100000 --save-every 1 --save " +
                           desk.path("saved") + " --metrics " + desk.path("m.jsonl");
  for (int round = 0; round < 4; ++round) {
    std::filesystem::remove(desk.path("m.jsonl"));
    {
      Process killed(words(line));
      desk.await_steps("m.jsonl", static_cast<std::size_t>(5 + 3 * round));
      std::this_thread::sleep_for(std::chrono::milliseconds(3 * round));
    }
    const Finished resumed = run(desk.base() + "--steps 0 --resume " + desk.path("saved"));
    CHECK(resumed.code == 0);
    CHECK(resumed.err == "");
  }
}

TEST_CASE("resume: after a kill the metrics have each step once, and the uninterrupted bits") {
  const Desk desk;
  const std::string line = desk.base() + "--ranks 2 --dropout 0.1 ";
  const std::string files =
      fmt::format("--save {} --metrics {} ", desk.path("saved"), desk.path("m.jsonl"));
  const auto whole = desk.bits(line + "--steps 60");
  REQUIRE(whole.size() == 60);
  {
    Process killed(words(line + files + "--steps 100000 --save-every 25"));
    desk.await_steps("m.jsonl", 40);
  }
  const auto before = desk.steps<int>("m.jsonl", "step");
  REQUIRE(before.size() >= 40);
  const Finished resumed = run(line + files + "--steps 60 --resume " + desk.path("saved"));
  REQUIRE_MESSAGE(resumed.code == 0, resumed.err);
  const auto steps = desk.steps<int>("m.jsonl", "step");
  REQUIRE(steps.size() >= 60);
  for (std::size_t i = 0; i < steps.size(); ++i) CHECK(steps[i] == static_cast<int>(i) + 1);
  const auto bits = desk.steps<std::string>("m.jsonl", "loss_bits");
  CHECK(std::equal(whole.begin(), whole.end(), bits.begin()));
}

}  // namespace cli
