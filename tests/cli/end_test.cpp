// What a run leaves when it ends well: report, validation loss, sample, picture.
#include <doctest/doctest.h>

#include "cli/desk.hpp"

namespace cli {
namespace {

constexpr std::size_t kSample = 40;

std::string after(const std::string& text, const std::string& mark) {
  const std::size_t at = text.find(mark);
  return at == std::string::npos ? "" : text.substr(at + mark.size());
}

/// Trains on 6 sequences a step, whatever the ranks. @return the sample.
std::string train(const Desk& desk, const std::string& launcher, int ranks,
                  const std::string& how) {
  const std::string line = fmt::format(
      "{}{} --batch {} --steps 10 --validation 0.1 --sample {} --plot {} --metrics {} {}", launcher,
      desk.loud(), 6 / ranks, kSample, desk.path("p.svg"), desk.path("m.jsonl"), how);
  CAPTURE(line);
  const Finished finished = run(line);
  REQUIRE_MESSAGE(finished.code == 0, finished.err);
  CHECK(contains(finished.out, "optimizer state"));
  const auto losses = desk.steps<double>("m.jsonl", "validation_loss");
  REQUIRE(losses.size() == 1);
  CHECK(contains(finished.out, fmt::format("\nvalidation loss {:.4f} nats/token\n", losses[0])));
  CHECK(slurp(desk.path("p.svg")).starts_with("<svg"));
  const std::string sampled = after(finished.out, "\nsample:\n");
  REQUIRE(sampled.size() > kSample);
  CHECK(sampled.substr(kSample) == "\ncurves: " + desk.path("p.svg") + "\n");
  return sampled.substr(0, kSample);
}

}  // namespace

TEST_CASE("end: validation, a sample of its length and a picture, alike on any ranks") {
  const Desk desk;
  const std::string expected = train(desk, "", 1, "");
  CHECK(train(desk, "", 3, "--ranks 3") == expected);
  if (has_mpi()) CHECK(train(desk, mpiexec(3), 3, "") == expected);
  CHECK(train(desk, "", 1, "--seed 2") != expected);
}

TEST_CASE("end: --quiet says nothing, and draws all the same") {
  const Desk desk;
  const Finished finished =
      run(desk.base() + "--steps 2 --validation 0.1 --sample 9 --plot " + desk.path("p.svg"));
  REQUIRE_MESSAGE(finished.code == 0, finished.err);
  CHECK(finished.out == "");
  CHECK(finished.err == "");
  CHECK(slurp(desk.path("p.svg")).starts_with("<svg"));
}

}  // namespace cli
