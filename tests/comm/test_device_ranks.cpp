// How ranks with GPUs reach each other follows from where they are, alike on all of them.
#include <doctest/doctest.h>

#include <functional>
#include <vector>

#include "ashlar/device_communicator.hpp"
#include "comm/device_ranks.hpp"
#include "comm/forwarding.hpp"

namespace ashlar {
namespace {

using detail::Reach;
using detail::Seat;

/// Ranks of nodes of a given size.
class Nodes final : public detail::ForwardingCommunicator {
 public:
  Nodes(Communicator& inner, int each) : ForwardingCommunicator(inner), each_(each) {}
  bool same_node(int rank) const override { return rank / each_ == inner_.rank() / each_; }

 private:
  int each_;
};

void check_reach(int ranks, int node, Reach expected, const std::function<Seat(int)>& seat) {
  launch_threads(ranks, [&](Communicator& threads) {
    Nodes nodes(threads, node);
    CHECK(detail::reach_of(nodes, seat(threads.rank())) == expected);
  });
}

}  // namespace

TEST_CASE("device ranks: what they need follows from processes, GPUs and nodes") {
  const auto threads_on_one = [](int) { return Seat{7, 1}; };
  const auto threads_on_own = [](int rank) { return Seat{7, rank}; };
  const auto processes_on_one = [](int rank) { return Seat{100 + rank, 0}; };
  const auto processes_on_own = [](int rank) { return Seat{100 + rank, rank % 2}; };
  const auto threads_on_two = [](int rank) { return Seat{7, rank % 2}; };
  check_reach(1, 1, Reach::shared_gpu, threads_on_one);
  check_reach(4, 4, Reach::shared_gpu, threads_on_one);
  check_reach(4, 4, Reach::nccl, threads_on_own);
  check_reach(3, 3, Reach::staged, processes_on_one);
  check_reach(3, 1, Reach::nccl, processes_on_one);
  check_reach(3, 1, Reach::nccl, threads_on_one);  // equal numbers on different nodes
  check_reach(4, 2, Reach::nccl, processes_on_own);
  check_reach(4, 4, Reach::staged, processes_on_own);
  check_reach(4, 4, Reach::staged, threads_on_two);
  check_reach(3, 2, Reach::staged, processes_on_one);  // two share one, one is alone
}

TEST_CASE("device ranks: where no GPU works, all ranks are told") {
  if (device_count(DeviceType::cuda) > 0) return;
  launch_threads(2, [](Communicator& threads) {
    CHECK_THROWS_AS(device_communicator(threads, {DeviceType::cuda, 0}), CudaError);
  });
}

}  // namespace ashlar
