#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <sstream>
#include <string>
#include <string_view>

namespace {

struct Outcome {
  std::string output;
  int status;
};

/// Three ranks, of which one fails.
Outcome run_failing(const std::string& how, const std::string& environment) {
  const std::string command = environment + " timeout -k 1 60 " + ASHLAR_MPIEXEC + " -n 3 " +
                              ASHLAR_FAILING_RANK + " " + how + " 2>&1";
  Outcome outcome;
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) outcome.output += buffer.data();
  outcome.status = ::pclose(pipe);
  return outcome;
}

/// Whether the line that `rank` printed holds `what`.
bool says(const Outcome& outcome, int rank, std::string_view what) {
  std::istringstream lines(outcome.output);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("rank " + std::to_string(rank) + ": "))
      return line.find(what) != std::string::npos;
  return false;
}

/// From the beginning of the step in which rank 1 failed to the error on `rank`, as it says.
double seconds_waited(const Outcome& outcome, int rank) {
  const std::string intro = "rank " + std::to_string(rank) + " waited ";
  const std::size_t at = outcome.output.find(intro);
  REQUIRE(at != std::string::npos);
  return std::stod(outcome.output.substr(at + intro.size()));
}

constexpr double kFoundWithin = 2;  // seconds: what docs/communication.md promises

constexpr std::array kTransports = {
    "ASHLAR_WINDOW=on",   // shared windows
    "ASHLAR_WINDOW=off",  // messages in a node
};

}  // namespace

TEST_CASE("mpi failure: survivors of a killed rank name it and what they were doing") {
  for (const std::string transport : kTransports) {
    const Outcome outcome = run_failing("dies", transport);
    CAPTURE(transport);
    CAPTURE(outcome.output);
    CHECK(outcome.status != 0);
    for (const int survivor : {0, 2}) {
      CHECK(says(outcome, survivor, "rank 1 has died (process "));
      CHECK(says(outcome, survivor,
                 "reduce_scatter h.3.grad 12 x f32 (#5) on rank " + std::to_string(survivor)));
      CHECK(seconds_waited(outcome, survivor) < kFoundWithin);
    }
  }
}

TEST_CASE("mpi failure: both survivors of rank 0 name it") {
  for (const std::string transport : kTransports) {
    const Outcome outcome = run_failing("first_dies", transport);
    CAPTURE(transport);
    CAPTURE(outcome.output);
    CHECK(outcome.status != 0);
    for (const int survivor : {1, 2}) {
      CHECK(says(outcome, survivor, "rank 0 has died (process "));
      CHECK(seconds_waited(outcome, survivor) < kFoundWithin);
    }
  }
}

TEST_CASE("mpi failure: without sight of its process, a killed rank is missed by its heartbeat") {
  const Outcome outcome = run_failing("dies_far_away", "");
  CAPTURE(outcome.output);
  CHECK((says(outcome, 0, "rank 1 has died") || says(outcome, 2, "rank 1 has died")));
  for (const int survivor : {0, 2}) CHECK(seconds_waited(outcome, survivor) < kFoundWithin);
}

TEST_CASE("mpi failure: a stopped rank is named when time is up") {
  for (const std::string transport : kTransports) {
    const Outcome outcome = run_failing("stops", transport);
    CAPTURE(transport);
    CAPTURE(outcome.output);
    CHECK(outcome.status != 0);
    CHECK((says(outcome, 0, "rank 1 did not arrive within 0.7 s") ||
           says(outcome, 2, "rank 1 did not arrive within 0.7 s")));
  }
}

TEST_CASE("mpi failure: a rank that throws tells the others why") {
  for (const std::string transport : kTransports) {
    const Outcome outcome = run_failing("throws", transport);
    CAPTURE(transport);
    CAPTURE(outcome.output);
    CHECK(outcome.status != 0);
    CHECK(says(outcome, 1, "injected fault"));
    for (const int survivor : {0, 2})
      CHECK(says(outcome, survivor, "rank 1 failed: injected fault"));
  }
}

TEST_CASE("mpi failure: input that one rank alone refuses is told by that rank") {
  for (const std::string transport : kTransports) {
    const Outcome outcome = run_failing("refuses", transport);
    CAPTURE(transport);
    CAPTURE(outcome.output);
    CHECK(outcome.status != 0);
    CHECK(outcome.output.find("program: unusable on rank 1 alone\n") != std::string::npos);
  }
}

TEST_CASE("mpi failure: ranks that diverge or leave are told what each called") {
  for (const std::string transport : kTransports) {
    CAPTURE(transport);
    const Outcome diverged = run_failing("diverges", transport);
    CAPTURE(diverged.output);
    CHECK(diverged.status != 0);
    for (const int rank : {0, 1, 2})
      CHECK(
          says(diverged, rank, "rank 0 called all_gather h.3 12 x f32 and rank 1 called barrier"));
    const Outcome left = run_failing("leaves", transport);
    CAPTURE(left.output);
    CHECK(left.status != 0);
    for (const int rank : {0, 2}) CHECK(says(left, rank, "rank 1 called nothing more"));
  }
}
