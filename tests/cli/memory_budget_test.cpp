// --memory-budget as a user gives it: kept to, at the same bits and the same traffic, or refused.
#include <doctest/doctest.h>

#include <algorithm>

#include "cli/desk.hpp"

namespace cli {
namespace {

std::int64_t total(const Desk& desk) {
  return desk.metrics("bits.jsonl").at(0)["peak_bytes"]["total"].get<std::int64_t>();
}

}  // namespace

TEST_CASE("memory budget: kept to in either order, with the bits of keeping everything") {
  const Desk desk;
  for (const std::string order : {"micro-batches --reduce last", "layers"}) {
    CAPTURE(order);
    const std::string line =
        desk.base() + "--steps 2 --ranks 2 --accumulate 2 --dropout 0.1 --order " + order;
    const auto kept = desk.bits(line + " --recompute none");
    const Json sent = desk.metrics("bits.jsonl").at(0)["sent_bytes"];
    const std::int64_t budget = total(desk) * 9 / 10;
    REQUIRE(kept.size() == 2);
    CHECK(desk.bits(fmt::format("{} --memory-budget {}", line, budget)) == kept);
    CHECK(total(desk) <= budget);
    CHECK(desk.metrics("bits.jsonl").at(0)["sent_bytes"] == sent);
  }
}

TEST_CASE("memory budget: one that is too small is refused in one line with the least") {
  const Desk desk;
  for (const std::string order : {"micro-batches", "layers"}) {
    const Finished finished =
        run(desk.base() + "--steps 1 --ranks 2 --memory-budget 10KiB --order " + order);
    CAPTURE(finished.err);
    CHECK(finished.code == 2);
    CHECK(std::ranges::count(finished.err, '\n') == 1);
    CHECK(contains(finished.err, "10.00 KiB (10240 bytes) cannot be met"));
    CHECK(contains(finished.err, "the step needs at least"));
    CHECK(contains(finished.err, "give more, use more ranks, or smaller batches"));
  }
}

}  // namespace cli
