// A dry run of a model that Ashlar did not trace records what its ranks would call.
#include "ashlar/dry_run.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "simulate/engine.hpp"
#include "simulate/ledger.hpp"
#include "simulate/recording_communicator.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::simulate {
namespace {

using test::Memory;
using test::ToyModel;

const std::vector<std::size_t> kOrder{6, 4, 2, 1, 0};

void take_step(ToyModel& model) {
  model.backward(1, kOrder);
  model.optimizer().step();
}

}  // namespace

TEST_CASE("dry run: a wrapped model's collectives are those of its ranks, every stage") {
  for (int ranks = 1; ranks <= 8; ranks += ranks < 4 ? 1 : 4) {
    for (int stage = 0; stage <= 3; ++stage) {
      ShardedOptions options;
      options.stage = stage;
      options.clip = 1;
      const Memory memory = stage == 3 ? Memory::optimizers : Memory::callers;
      CAPTURE(fmt::format("{} ranks, stage {}", ranks, stage));

      RecordingCommunicator dry(ranks);
      ToyModel imagined(dry, memory, DType::f32, AdamW{}, options);
      take_step(imagined);  // at stage 3 the order of units is learnt
      dry.clear();
      take_step(imagined);
      const Workload work = dry.workload(cluster("dgx-a100"));

      launch_threads(ranks, [&](Communicator& world) {
        Ledger ledger(world);
        ToyModel model(ledger, memory, DType::f32, AdamW{}, options);
        take_step(model);
        ledger.lines.clear();
        take_step(model);
        if (world.rank() == 0) CHECK(ledger.lines == lines_of(work));
      });
      CHECK(!work.collectives.empty());
      if (ranks == 1) continue;
      const RankClass all[] = {{ranks, 1}};
      CHECK(run(work, all).end > 0);
    }
  }
}

TEST_CASE("dry run: kernels are priced where they stand") {
  RecordingCommunicator dry(8);
  std::vector<float> values(1000);
  const Cost cost{Cost::Class::product, 1e12, 0, 0};
  dry.kernel(cost, DType::bf16);
  Work sum = dry.all_reduce({reinterpret_cast<std::byte*>(values.data()), DType::f32, {1000}});
  dry.kernel(cost, DType::bf16);
  sum.wait();
  sum.wait();
  Cluster cluster = simulate::cluster("dgx-a100");
  cluster.overlap_slowdown = 0;
  const Workload work = dry.workload(cluster);
  REQUIRE(work.tasks.size() == 4);
  const RankClass all[] = {{8, 1}};
  const double seconds = static_cast<double>(run(work, all).end) * 1e-12;
  CHECK(seconds == doctest::Approx(2 * (1e12 / 312e12 / 0.86 + 4e-6)).epsilon(1e-6));
}

TEST_CASE("dry run: a communicator of its own flies beside the first, and shares the links") {
  const auto ends = [](bool own) {
    RecordingCommunicator dry(8);
    const auto other = dry.split(0, 0);
    std::vector<float> values(1'000'000);
    const TensorView whole{reinterpret_cast<std::byte*>(values.data()), DType::f32, {1'000'000}};
    Work first = dry.all_reduce(whole, "first");
    Work second = (own ? *other : dry).all_reduce(whole, "second");
    first.wait();
    dry.kernel({Cost::Class::product, 1e9, 0, 0}, DType::bf16);
    second.wait();
    const Workload work = dry.workload(cluster("dgx-a100"));
    std::int64_t alone = work.collectives[0].picoseconds, waited = 0;
    const RankClass all[] = {{8, 1}};
    const StepTimes times = run(work, all, [&](const Span& span) {
      if (waited == 0 && !span.flight) waited = span.end;
    });
    CHECK(times.in_flight == 2 * alone);
    return static_cast<double>(waited) / static_cast<double>(alone);
  };
  CHECK(ends(false) == 1);
  CHECK(ends(true) == 2);
}

TEST_CASE("dry run: what has no price is refused") {
  CHECK_THROWS_AS(DryRun(0), InvalidArgument);
  DryRun dry(2);
  CHECK_THROWS_WITH_AS(dry.communicator().send({}, 1, "boundary"), doctest::Contains("boundary"),
                       InvalidArgument);
  dry.communicator().barrier("end of epoch");
  CHECK_THROWS_WITH_AS(dry.times("cpu"), doctest::Contains("a barrier (end of epoch)"),
                       InvalidArgument);
  dry.clear();
  CHECK(dry.times("cpu").seconds == 0);
  CHECK_THROWS_AS(dry.times("abacus"), InvalidArgument);
}

TEST_CASE("dry run: a user's step on 64 devices") {
  DryRun dry(64);
  ToyModel model(dry.communicator(), Memory::callers, DType::f32, AdamW{}, {});
  dry.clear();
  dry.kernel({.kind = Cost::Class::product, .flops = 3e12}, DType::bf16);
  take_step(model);
  const DryRunTimes times = dry.times("dgx-a100");
  CHECK(times.seconds > 3e12 / 312e12);
  CHECK(times.exposed_seconds > 0);
  CHECK(times.sent_bytes > 0);
}

}  // namespace ashlar::simulate
