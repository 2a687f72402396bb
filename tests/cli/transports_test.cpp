// Ranks as threads, as processes with shared windows and as processes with messages leave the same
// losses, to the bit.
#include <doctest/doctest.h>

#include "cli/desk.hpp"

namespace cli {

TEST_CASE("train_gpt: threads, windows and messages give the same 30 losses") {
  const Desk desk;
  if (!has_mpi()) return;
  int stage = 0;
  for (const std::string precision : {"fp32", "bf16"}) {
    for (const int ranks : {1, 2, 3, 4}) {
      const auto line = [&](const char* sharding) {
        return fmt::format(
            "{} --steps 30 --clip 0.5 --dropout 0.1 --freeze wpe --precision {} --accumulate 2 "
            "--reduce each {}",
            desk.base(), precision, sharding);
      };
      const std::string sharding = fmt::format("--stage {} --prefetch 2 --bucket 8KiB", stage);
      CAPTURE(line(sharding.c_str()));
      CAPTURE(ranks);
      const auto expected =
          desk.bits(line("--stage 0 --overlap off") + fmt::format(" --ranks {}", ranks));
      REQUIRE(expected.size() == 30);
      CHECK(desk.bits(mpiexec(ranks) + line(sharding.c_str())) == expected);
      CHECK(desk.bits("env ASHLAR_WINDOW=off " + mpiexec(ranks) +
                      line("--stage 3 --reshard off --overlap off --prefetch 0")) == expected);
      stage = (stage + 1) % 4;
    }
  }
}

TEST_CASE("train_gpt: processes with shared windows leave the bits of threads at every stage") {
  const Desk desk;
  if (!has_mpi()) return;
  for (const std::string precision : {"fp32", "bf16"}) {
    const std::string line = fmt::format(
        "{} --steps 10 --clip 0.5 --dropout 0.1 --freeze wpe --precision {} --accumulate 2 "
        "--reduce each ",
        desk.base(), precision);
    const auto expected = desk.bits(line + "--stage 0 --overlap off --ranks 2");
    REQUIRE(expected.size() == 10);
    for (const int stage : {0, 1, 2, 3}) {
      CAPTURE(precision);
      CAPTURE(stage);
      CHECK(desk.bits(fmt::format("{} {} --stage {} --bucket 8KiB", mpiexec(2), line, stage)) ==
            expected);
    }
  }
}

TEST_CASE("train_gpt: sharding groups leave the same bits on every transport and at every stage") {
  const Desk desk;
  for (const std::string precision : {"fp32", "bf16"}) {
    const std::string line = fmt::format("{} --steps 10 --clip 0.5 --precision {} --shard-group 2 ",
                                         desk.base(), precision);
    const auto expected = desk.bits(line + "--stage 1 --ranks 4");
    REQUIRE(expected.size() == 10);
    CHECK(desk.bits(line + "--stage 3 --ranks 4 --bucket 8KiB") == expected);
    if (!has_mpi()) continue;
    for (const std::string transport : {"", "env ASHLAR_WINDOW=off "})
      CHECK(desk.bits(transport + mpiexec(4) + line + "--stage 3 --bucket 8KiB") == expected);
  }
}

TEST_CASE("train_gpt: a sharding group that does not divide the ranks is refused") {
  const Desk desk;
  const Finished finished = run(desk.base() + "--steps 1 --ranks 4 --shard-group 3");
  CHECK(finished.code == 2);
  CHECK(finished.err == "train_gpt: --shard-group 3: must divide the 4 rank(s)\n");
}

TEST_CASE("train_gpt: worlds that share the global batch agree on the losses to 1e-4") {
  const Desk desk;
  std::vector<double> expected;
  for (const int ranks : {1, 2, 3, 4}) {
    const Finished finished =
        run(fmt::format("{} --batch {} --ranks {} --steps 30 --dropout 0.1 --metrics {}",
                        desk.base(), 12 / ranks, ranks, desk.path("m.jsonl")));
    REQUIRE_MESSAGE(finished.code == 0, finished.err);
    const auto losses = desk.steps<double>("m.jsonl", "loss");
    REQUIRE(losses.size() == 30);
    if (ranks == 1) expected = losses;
    for (std::size_t i = 0; i < losses.size(); ++i)
      CHECK(std::abs(losses[i] - expected[i]) <= 1e-4 * expected[i]);
  }
}

}  // namespace cli
