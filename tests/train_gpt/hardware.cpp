// Cores shared between ranks, and the collective that settles the number of threads.
#include "train_gpt/hardware.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "ashlar/communicator.hpp"

using namespace train_gpt;

namespace {

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

Seat seat(int first, int last, double quota = kNoQuota) {
  Seat made;
  for (int core = first; core <= last; ++core) made.cores.set(static_cast<std::size_t>(core));
  made.quota = quota;
  return made;
}

int share(const std::vector<Seat>& node, std::size_t mine = 0) {
  return share_of_cores(node[mine], node);
}

}  // namespace

TEST_CASE("hardware: ranks that may use the same cores share them") {
  CHECK(share({seat(0, 15)}) == 16);
  CHECK(share(std::vector(4, seat(0, 15))) == 4);
  CHECK(share(std::vector(5, seat(0, 15))) == 3);
  CHECK(share(std::vector(40, seat(0, 15))) == 1);
}

TEST_CASE("hardware: ranks bound to cores of their own keep them") {
  const std::vector<Seat> bound{seat(0, 7), seat(8, 15), seat(8, 15), seat(64, 64)};
  CHECK(share(bound, 0) == 8);
  CHECK(share(bound, 1) == 4);
  CHECK(share(bound, 3) == 1);
}

TEST_CASE("hardware: a quota of time is shared by all ranks of the node") {
  CHECK(share({seat(0, 15, 4)}) == 4);
  CHECK(share({seat(0, 15, 1.5)}) == 1);
  CHECK(share({seat(0, 15, 0.5)}) == 1);
  CHECK(share(std::vector(2, seat(0, 15, 6.5))) == 3);
  CHECK(share({seat(0, 7, 6), seat(8, 15, 6)}) == 3);
  CHECK(share(std::vector(2, seat(0, 1, 100))) == 1);
}

TEST_CASE("hardware: all ranks take the same number of threads") {
  const int alone = share({take_seat()});
  CHECK(alone >= 1);
  for (const int ranks : {1, 2, 3})
    ashlar::launch_threads(ranks, [&](ashlar::Communicator& world) {
      CHECK(default_threads(world) == std::max(1, alone / ranks));
    });
}
