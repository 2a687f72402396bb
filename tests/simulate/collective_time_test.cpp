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

TEST_CASE("collective time: groups in a node use its links alone, their replicas the network") {
  const Cluster cluster = two_tiers();
  const auto ring = [&](int ranks, int stride) {
    return seconds_of(kGather, 4e9, ranks, cluster, Algorithm::ring, stride);
  };
  CHECK(ring(8, 1) == doctest::Approx(7 * 2e-6 + 4e9 * 7 / 8 / 100e9).epsilon(1e-12));
  // A rank of each of four nodes, and the eight of a node share its cards.
  CHECK(ring(4, 8) == doctest::Approx(3 * 10e-6 + 4e9 * 3 / 4 / (50e9 / 8)).epsilon(1e-12));
  CHECK(ring(4, 16) == doctest::Approx(3 * 10e-6 + 4e9 * 3 / 4 / (50e9 / 8)).epsilon(1e-12));
  // Four of each of two nodes, two sets in a node.
  CHECK(ring(8, 2) == doctest::Approx(7 * 10e-6 + 4e9 * 7 / 8 / (50e9 / 2)).epsilon(1e-12));
  // All in one node.
  CHECK(ring(4, 2) == doctest::Approx(3 * 2e-6 + 4e9 * 3 / 4 / 100e9).epsilon(1e-12));
  CHECK(ring(1, 64) == 0);
  CHECK(placement(4, 16, cluster).beside == 8);
  CHECK_THROWS_AS(ring(8, 3), InvalidArgument);   // groups of 3 straddle nodes
  CHECK_THROWS_AS(ring(2, 12), InvalidArgument);  // and so do groups of 12
}

}  // namespace ashlar::simulate
