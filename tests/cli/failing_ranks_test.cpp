// A rank that dies or stops in the middle of training: the others say which and in what, and the
// program ends.
#include <doctest/doctest.h>

#include "cli/desk.hpp"

namespace cli {
namespace {

/// Three ranks train; after some steps the last gets `signal`.
Finished train_and_signal(const Desk& desk, const std::string& environment, int signal) {
  std::filesystem::remove(desk.path("m.jsonl"));
  Process program(words(fmt::format("env {} {} {} --steps 1000000 --timeout 5 --metrics {}",
                                    environment, mpiexec(3), desk.base(), desk.path("m.jsonl"))));
  desk.await_steps("m.jsonl", 10);
  ::kill(rank_process(program, 2), signal);
  return program.wait(std::chrono::seconds(30));
}

bool names_collective(const std::string& text) {
  for (const char* name : {"all_gather", "reduce_scatter", "all_reduce", "all_to_all"})
    if (contains(text, name)) return true;
  return false;
}

}  // namespace

TEST_CASE("failing ranks: survivors of a killed rank name it and the collective") {
  if (!has_mpi()) return;
  const Desk desk;
  for (const std::string environment : {"ASHLAR_WINDOW=on", "ASHLAR_WINDOW=off"}) {
    const Finished finished = train_and_signal(desk, environment, SIGKILL);
    CAPTURE(environment);
    CAPTURE(finished.err);
    CHECK_FALSE(finished.timed_out);
    CHECK(finished.code != 0);
    CHECK(contains(finished.err, "rank 2 has died"));
    CHECK(names_collective(finished.err));
  }
}

TEST_CASE("failing ranks: a stopped rank is named when --timeout is over") {
  if (!has_mpi()) return;
  const Desk desk;
  for (const std::string environment : {"ASHLAR_WINDOW=on", "ASHLAR_WINDOW=off"}) {
    const Finished finished = train_and_signal(desk, environment, SIGSTOP);
    CAPTURE(environment);
    CAPTURE(finished.err);
    CHECK_FALSE(finished.timed_out);
    CHECK(finished.code != 0);
    CHECK(contains(finished.err, "rank 2 did not arrive within 5"));
    CHECK(names_collective(finished.err));
  }
}

}  // namespace cli
