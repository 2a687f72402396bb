// A small GPT trained on a device without hardware: kernels on the emulator, products and
// collectives of the CPU in the order of streams, which run as late as events allow or ahead as the
// test chooses.
#include <doctest/doctest.h>

#include <string>

#include "ashlar/error.hpp"
#include "emulated/train_run.hpp"
#include "support/late_communicator.hpp"

namespace ashlar {
namespace {

using namespace test;  // NOLINT: what its own header declares

Outcome train(const Run& run) {
  Outcome outcome;
  launch_threads(run.ranks, [&](Communicator& threads) {
    LateDevice device(run.ahead, run.seed + static_cast<unsigned>(threads.rank()));
    const DeviceSide side = emulated(device.stream());
    LateCommunicator world(threads, device);
    world.lost_sum = run.lost_sum;
    world.lost_join = run.lost_join;
    Outcome mine = train_rank(world, run, &side, device.memory());
    mine.sums = world.sums;
    mine.joins = world.joins;
    if (threads.rank() == 0) outcome = mine;
  });
  return outcome;
}

Outcome train_on_cpu(const Run& run) {
  Outcome outcome;
  launch_threads(run.ranks, [&](Communicator& world) {
    const Outcome mine = train_rank(world, run, nullptr);
    if (world.rank() == 0) outcome = mine;
  });
  return outcome;
}

}  // namespace

TEST_CASE("device: a GPT's losses have the same bits at all stages, and are the CPU's to 1e-5") {
  for (const int ranks : {1, 2}) {
    const Outcome expected = train({.ranks = ranks});
    check_close(expected, train_on_cpu({.ranks = ranks}), 1e-5);
    CHECK(expected.losses.back() < expected.losses.front());
    for (const int stage : {1, 2, 3}) {
      CAPTURE(ranks);
      CAPTURE(stage);
      CHECK(train({.ranks = ranks, .stage = stage}).bits == expected.bits);
    }
  }
}

TEST_CASE("device: nor do they depend on which of its streams run ahead") {
  for (const int stage : {0, 3}) {
    const Run run{.ranks = 2, .stage = stage, .steps = 2, .layers = 1};
    const Outcome expected = train(run);
    for (const Ahead ahead : {Ahead::first, Ahead::others, Ahead::random}) {
      CAPTURE(stage);
      CAPTURE(static_cast<int>(ahead));
      Run other = run;
      other.ahead = ahead;
      CHECK(train(other).bits == expected.bits);
    }
  }
}

TEST_CASE("device: a GPT in bf16 has the same bits at all stages, and the CPU's losses roughly") {
  const Outcome expected = train({.ranks = 2, .dtype = DType::bf16});
  check_close(expected, train_on_cpu({.ranks = 2, .dtype = DType::bf16}), 1e-2);
  for (const int stage : {1, 2, 3})
    CHECK(train({.ranks = 2, .stage = stage, .dtype = DType::bf16}).bits == expected.bits);
}

TEST_CASE("device: over a communicator of the host, on a stream that is a thread") {
  for (const int stage : {0, 3}) {
    const Run run{.ranks = 2, .stage = stage, .steps = 2, .layers = 1};
    Outcome outcome;
    launch_threads(run.ranks, [&](Communicator& world) {
      const Stream stream;
      const DeviceSide side = emulated(stream);
      const Outcome mine = train_rank(world, run, &side);
      if (world.rank() == 0) outcome = mine;
    });
    CHECK(outcome.bits == train(run).bits);
  }
}

// Sums that start too early find gradients that are not there, where collectives run ahead; kernels
// that run ahead find neither parameters nor sums. Gathers read what the step before has left.
TEST_CASE("device: each order between streams that a step loses is seen") {
  const Run run{.ranks = 2, .stage = 3, .steps = 1, .layers = 1};
  const Outcome expected = train(run);
  REQUIRE(expected.sums >= 6);
  REQUIRE(expected.joins >= 15);
  Run mutant = run;
  mutant.ahead = Ahead::others;
  for (mutant.lost_sum = 0; mutant.lost_sum < expected.sums; ++mutant.lost_sum) {
    CAPTURE(mutant.lost_sum);
    CHECK(train(mutant).bits != expected.bits);
  }
  mutant = run;
  mutant.ahead = Ahead::first;
  for (mutant.lost_join = 0; mutant.lost_join < expected.joins; ++mutant.lost_join) {
    CAPTURE(mutant.lost_join);
    CHECK(train(mutant).bits != expected.bits);
  }
}

TEST_CASE("device: a rank that fails ends the others, with work still on its streams") {
  for (const Ahead ahead : {Ahead::nothing, Ahead::first, Ahead::others}) {
    std::string error;
    try {
      launch_threads(2, [&](Communicator& threads) {
        LateDevice device(ahead);
        const DeviceSide side = emulated(device.stream());
        LateCommunicator world(threads, device);
        const Run run{.ranks = 2, .stage = 3};
        TrainConfig config = config_of(run);
        config.memory = &device.memory();
        TrainStep step(world, model_of(run), config, {}, {{}, {}, &side});
        step.step([&](std::int64_t k, const Batch& batch) {
          if (k == 1 && world.rank() == 0) throw InvalidArgument("no more tokens");
          load_tokens(batch, k, world.rank());
        });
      });
    } catch (const Error& failure) {
      error = failure.what();
    }
    CHECK(error.find("no more tokens") != std::string::npos);
  }
}

TEST_CASE("device: a step is refused where a GPU has no kernel for one of its ops") {
  launch_threads(1, [&](Communicator& world) {
    DeviceSide side = emulated({});
    side.backend.device = DeviceType::cuda;
    CHECK_THROWS_WITH_AS(TrainStep(world, model_of({}), config_of({}), {}, {{}, {}, &side}),
                         doctest::Contains("there is no kernel for it on CUDA"), InvalidArgument);
  });
}

}  // namespace ashlar
