#include <doctest/doctest.h>

#include "comm/conformance.hpp"

namespace ashlar {

TEST_CASE("communicator: one rank conforms") {
  const auto communicator = self_communicator();
  CHECK(communicator->name() == "self");
  CHECK(communicator->size() == 1);
  test::check_conformance(*communicator);
}

TEST_CASE("communicator: threads conform") {
  for (const int ranks : {1, 2, 3, 4, 5}) {
    CAPTURE(ranks);
    launch_threads(ranks, [&](Communicator& communicator) {
      CHECK(communicator.name() == "threads");
      CHECK(communicator.size() == ranks);
      test::check_conformance(communicator);
    });
  }
}

}  // namespace ashlar
