// What collectives take, against the textbook's closed forms written out here.
#include "simulate/collective_time.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "ashlar/error.hpp"

namespace ashlar::simulate {
namespace {

/// 8 devices of 100 GB/s and 2 us; between nodes 50 GB/s for all cards, 10 us.
Cluster two_tiers() {
  Cluster cluster;
  cluster.name = "test";
  cluster.devices_per_node = 8;
  cluster.node = {100e9, 1, 2e-6};
  cluster.network = {50e9, 1, 10e-6};
  return cluster;
}

constexpr auto kGather = CollectiveKind::all_gather;

}  // namespace

TEST_CASE("collective time: a ring on one node is (N-1) alpha + (N-1)/N bytes beta") {
  const Cluster cluster = two_tiers();
  for (const int n : {1, 2, 3, 5, 8}) {
    for (const double bytes : {0.0, 1.0, 1e6, 3e9}) {
      const double expected = (n - 1) * 2e-6 + bytes * (n - 1) / n / 100e9;
      CHECK(seconds_of(kGather, bytes, n, cluster, Algorithm::ring) ==
            doctest::Approx(expected).epsilon(1e-12));
      CHECK(seconds_of(CollectiveKind::all_reduce, bytes, n, cluster, Algorithm::ring) ==
            doctest::Approx(2 * expected).epsilon(1e-12));
    }
  }
}

TEST_CASE("collective time: over two tiers the node's cards together carry the ring") {
  Cluster cluster = two_tiers();
  const double bytes = 4e9;
  const double moved = bytes * 31 / 32;
  CHECK(seconds_of(kGather, bytes, 32, cluster, Algorithm::ring) ==
        doctest::Approx(31 * 10e-6 + moved / 50e9).epsilon(1e-12));
  cluster.oversubscription = 2;
  CHECK(seconds_of(kGather, bytes, 32, cluster, Algorithm::ring) ==
        doctest::Approx(31 * 10e-6 + moved / 25e9).epsilon(1e-12));
  cluster.oversubscription = 1;
  cluster.network.slowest = 0.25;
  CHECK(seconds_of(kGather, bytes, 32, cluster, Algorithm::ring) ==
        doctest::Approx(31 * 10e-6 + moved / 12.5e9).epsilon(1e-12));
  cluster.network.slowest = 1;
  cluster.network.rate = 1e12;  // now the links inside are the narrow ones
  CHECK(seconds_of(kGather, bytes, 32, cluster, Algorithm::ring) ==
        doctest::Approx(31 * 10e-6 + moved / 100e9).epsilon(1e-12));
  cluster.node.slowest = 0.5;
  CHECK(seconds_of(kGather, bytes, 32, cluster, Algorithm::ring) ==
        doctest::Approx(31 * 10e-6 + moved / 50e9).epsilon(1e-12));
}

TEST_CASE("collective time: hierarchical goes between nodes, then within; a tree has log steps") {
  const Cluster cluster = two_tiers();
  const double bytes = 4e9;
  const double inside = bytes * 7 / 8 / 100e9, between = bytes * 3 / 4 / 50e9;
  CHECK(seconds_of(kGather, bytes, 32, cluster, Algorithm::hierarchical) ==
        doctest::Approx(7 * 2e-6 + inside + 3 * 10e-6 + between).epsilon(1e-12));
  CHECK(seconds_of(kGather, bytes, 32, cluster, Algorithm::tree) ==
        doctest::Approx(3 * 2e-6 + inside + 2 * 10e-6 + between).epsilon(1e-12));
}

TEST_CASE("collective time: the automatic choice is the quickest, and more bytes never take less") {
  const Cluster cluster = two_tiers();
  for (const int n : {2, 8, 16, 1024, 100000}) {
    double before = 0;
    for (double bytes = 1; bytes < 1e11; bytes *= 7) {
      const double automatic = seconds_of(kGather, bytes, n, cluster, Algorithm::automatic);
      double best = INFINITY;
      for (const auto a : {Algorithm::ring, Algorithm::tree, Algorithm::hierarchical})
        best = std::min(best, seconds_of(kGather, bytes, n, cluster, a));
      CHECK(automatic == best);
      CHECK(automatic >= before);
      before = automatic;
    }
  }
}

TEST_CASE("collective time: ranks that leave a node half full are refused") {
  CHECK_THROWS_WITH_AS(seconds_of(kGather, 1, 12, two_tiers(), Algorithm::ring),
                       doctest::Contains("multiple of 8"), InvalidArgument);
  CHECK_THROWS_WITH_AS(algorithm_of("rings"), doctest::Contains("auto, ring"), InvalidArgument);
}

}  // namespace ashlar::simulate
