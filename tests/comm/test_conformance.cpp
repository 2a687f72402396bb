#include <doctest/doctest.h>

#include "ashlar/device_communicator.hpp"
#include "comm/conformance.hpp"
#include "comm/failures.hpp"
#include "comm/staged.hpp"

namespace ashlar {
namespace {

/// Calls on the CPU's streams are staged as a GPU's would be.
std::shared_ptr<detail::Staging> staging_everything(MemoryResource& memory) {
  return std::make_shared<detail::Staging>(Device{DeviceType::cuda, 0}, detail::borrowed(memory),
                                           detail::borrowed(host_memory()), Stream());
}

}  // namespace

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

TEST_CASE("communicator: staged buffers conform") {
  for (const int ranks : {1, 2, 3}) {
    CAPTURE(ranks);
    launch_threads(ranks, [&](Communicator& threads) {
      StatisticsAdaptor memory(host_memory());
      {
        detail::StagedCommunicator communicator(threads, staging_everything(memory));
        CHECK(communicator.size() == ranks);
        test::check_conformance(communicator);
        CHECK(memory.allocations() > 0);
      }
      CHECK(memory.live()[static_cast<std::size_t>(Category::communication)] == 0);
    });
  }
}

TEST_CASE("communicator: those of GPUs say so where there is none") {
  if (device_count(DeviceType::cuda) > 0) return;
  constexpr Device gpu{DeviceType::cuda, 0};
  const auto self = self_communicator();
  CHECK_THROWS_AS(nccl_communicator(*self, gpu), CudaError);
  CHECK_THROWS_AS(nccl_communicator(FileBootstrap{0, 1, "meeting"}, gpu), CudaError);
  CHECK_THROWS_AS(staged_communicator(*self, gpu), CudaError);
}

TEST_CASE("communicator: staging passes on what lies in its own memory") {
  launch_threads(2, [](Communicator& threads) {
    const auto communicator = staged_communicator(threads, Device{});
    test::check_all_reduce(*communicator, 1);
    communicator->barrier("end");
  });
}

TEST_CASE("communicator: staged buffers reach nobody once their group has failed") {
  const auto body = [](Communicator& threads) {
    detail::StagedCommunicator communicator(threads, staging_everything(host_memory()));
    const test::Flat values = test::filled(DType::f32, 100, 1);
    if (communicator.rank() == 0) communicator.abort("out of disk");
    Work work = communicator.all_reduce(values.view(), "norm", {});
    CHECK(test::contains(test::failure_of([&] { work.wait(); }), "rank 0 failed: out of disk"));
    CHECK(work.done());
    CHECK(test::same_bits(values.view(), test::filled(DType::f32, 100, 1).view()));
    CHECK_THROWS_AS(communicator.barrier("later"), CommunicationError);
  };
  launch_threads(2, body);
}

}  // namespace ashlar
