// A rank that dies or stops in the middle of training: the others say which and in what, and the
// program ends.
#include <doctest/doctest.h>

#include <regex>

#include "cli/desk.hpp"

namespace cli {
namespace {

/// docs/communication.md: a dead rank is found in 2 s.
constexpr std::chrono::seconds kFoundWithin(2);
constexpr std::chrono::seconds kTimeout(5);

struct Failed {
  bool told_in_time;  // counted from the signal
  Finished finished;
};

/// Three ranks train; after some steps one gets `signal`, and the others are to say `what` within
/// `limit`.
Failed train_and_signal(const Desk& desk, const std::string& environment, int rank, int signal,
                        const std::string& what, std::chrono::milliseconds limit) {
  std::filesystem::remove(desk.path("m.jsonl"));
  Process program(
      words(fmt::format("env {} {} {} --steps 1000000 --timeout {} --metrics {}", environment,
                        mpiexec(3), desk.base(), kTimeout.count(), desk.path("m.jsonl"))));
  desk.await_steps("m.jsonl", 10);
  ::kill(rank_process(program, rank), signal);
  const bool told_in_time = program.says(what, limit);
  return {told_in_time, program.wait(std::chrono::seconds(30 * kPatience))};
}

/// Whether a line names a collective, its tensors' label and count, the rank that speaks, and then
/// says `what`.
bool names_all(const std::string& text, const std::string& what) {
  const std::regex line(
      "train_gpt: (all_gather|reduce_scatter|all_reduce|all_to_all) \\S.* [0-9]+ x [a-z0-9]+.*"
      " \\(#[0-9]+\\) on rank [0-2]: " +
      what);
  return std::regex_search(text, line);
}

}  // namespace

TEST_CASE("failing ranks: survivors of a killed rank name it and the collective") {
  if (!has_mpi()) return;
  const Desk desk;
  for (const std::string environment : {"ASHLAR_WINDOW=on", "ASHLAR_WINDOW=off"}) {
    for (const int rank : {0, 2}) {  // rank 0 is also the one that speaks for all
      const std::string died = fmt::format("rank {} has died", rank);
      const auto [told_in_time, finished] =
          train_and_signal(desk, environment, rank, SIGKILL, died, kFoundWithin);
      CAPTURE(environment);
      CAPTURE(finished.err);
      CHECK_FALSE(finished.timed_out);
      CHECK(finished.code != 0);
      CHECK(told_in_time);
      CHECK(names_all(finished.err, died + " \\(process [0-9]+ is gone\\)"));
    }
  }
}

TEST_CASE("failing ranks: a stopped rank is named when --timeout is over") {
  if (!has_mpi()) return;
  const Desk desk;
  for (const std::string environment : {"ASHLAR_WINDOW=on", "ASHLAR_WINDOW=off"}) {
    const auto [told_in_time, finished] = train_and_signal(
        desk, environment, 2, SIGSTOP, "rank 2 did not arrive within 5 s", kTimeout + kFoundWithin);
    CAPTURE(environment);
    CAPTURE(finished.err);
    CHECK_FALSE(finished.timed_out);
    CHECK(finished.code != 0);
    CHECK(told_in_time);
    CHECK(names_all(finished.err, "rank 2 did not arrive within 5 s"));
  }
}

}  // namespace cli
