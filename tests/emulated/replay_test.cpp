// Steps that were recorded once and are enqueued again: the same bits as steps issued anew, in
// memory that they have taken before, and the host waits for nothing on the way.
#include <doctest/doctest.h>

#include "ashlar/error.hpp"
#include "comm/staged.hpp"
#include "cuda/shared_gpu.hpp"
#include "emulated/train_run.hpp"

namespace ashlar {
namespace {

using namespace test;  // NOLINT: what its own header declares
using cuda::SharedGpuCommunicator;

constexpr std::int64_t kReplayed = 10;  // after one that is issued

struct Card {
  explicit Card(Ahead ahead, unsigned seed = 1) : device(ahead, seed) {}
  LateDevice device;
  StreamRef kernels = device.stream(), collectives = device.stream();
};

Outcome train(const Run& run, bool replays, Card& card,
              const std::function<void(Executor&)>& bound = {}) {
  const auto self = self_communicator();
  SharedGpuCommunicator world(*self,
                              {detail::borrowed(card.device.memory()), card.collectives, nullptr});
  DeviceSide side = emulated(card.kernels);
  side.target.replays = replays;
  return train_rank(world, run, &side, card.device.memory(), bound);
}

Run with_dropout_and_warmup(int stage, DType dtype) {
  return {.stage = stage,
          .dtype = dtype,
          .steps = kReplayed + 1,
          .layers = 1,
          .warmup = 4,
          .micro_batches = 2};
}

}  // namespace

TEST_CASE("replay: ten replayed steps equal ten issued ones in bits, with warm-up, clip, dropout") {
  for (const auto& [stage, dtype] : {std::pair{0, DType::f32}, std::pair{3, DType::bf16}}) {
    CAPTURE(stage);
    const Run run = with_dropout_and_warmup(stage, dtype);
    Card issued(Ahead::nothing);
    const Outcome expected = train(run, false, issued);
    CHECK(issued.device.recordings == 0);
    CHECK(expected.replayed == 0);
    for (const Ahead ahead : {Ahead::nothing, Ahead::random}) {
      Card card(ahead, 5);
      const Outcome outcome = train(run, true, card);
      CHECK(outcome.bits == expected.bits);
      CHECK(outcome.replayed == kReplayed - 1);  // the first of them records
      const int sections = 2 + static_cast<int>(run.micro_batches);
      CHECK(card.device.recordings == sections);
      CHECK(card.device.launches == sections * kReplayed);
    }
  }
}

TEST_CASE("replay: steps of other loads follow the tokens that they are given") {
  Run run = with_dropout_and_warmup(0, DType::f32);
  run.micro_batches = 1;
  const auto losses = [&](bool replays) {
    Card card(Ahead::nothing);
    const auto self = self_communicator();
    SharedGpuCommunicator world(
        *self, {detail::borrowed(card.device.memory()), card.collectives, nullptr});
    DeviceSide side = emulated(card.kernels);
    side.target.replays = replays;
    TrainConfig config = config_of(run);
    config.memory = &card.device.memory();
    TrainStep step(world, model_of(run), config, {}, {{}, {}, &side});
    std::vector<float> all;
    for (std::int64_t i = 0; i < 4; ++i)
      all.push_back(
          step.step([&](std::int64_t, const Batch& batch) { load_tokens(batch, 100 * i, 0); })
              .loss);
    return all;
  };
  CHECK(losses(true) == losses(false));
}

TEST_CASE("replay: within a step the host waits for nothing; after the first none takes memory") {
  const Run run = with_dropout_and_warmup(3, DType::f32);  // of more than two micro-batches, the
                                                           // loader waits for room
  Card issued(Ahead::nothing);
  int before = 0, inside = 0, instructions = 0;
  train(run, false, issued, [&](Executor& executor) {
    executor.on_event = [&](const ExecutorEvent& event) {
      if (event.node == 0 && event.micro_batch == 0) before = issued.device.host_waits();
      inside += issued.device.host_waits() != before ? 1 : 0;
      ++instructions;
    };
  });
  CHECK(instructions > 100);
  CHECK(inside == 0);

  Card card(Ahead::nothing);
  const auto self = self_communicator();
  SharedGpuCommunicator world(*self,
                              {detail::borrowed(card.device.memory()), card.collectives, nullptr});
  DeviceSide side = emulated(card.kernels);
  side.target.replays = true;
  TrainConfig config = config_of(run);
  config.memory = &card.device.memory();
  TrainStep step(world, model_of(run), config, {}, {{}, {}, &side});
  int waits = 0, allocations = 0;
  for (std::int64_t i = 0; i < 4; ++i) {
    step.step([&](std::int64_t k, const Batch& batch) { load_tokens(batch, k, 0); });
    if (i == 0) allocations = card.device.allocations();
    if (i > 0) CHECK(card.device.host_waits() == waits + 1);
    waits = card.device.host_waits();
  }
  CHECK(card.device.allocations() == allocations);
}

TEST_CASE("replay: the emulated device refuses what CUDA refuses of a recording") {
  LateDevice device(Ahead::nothing);
  const StreamRef one = device.stream(), two = device.stream();
  detail::StreamState& stream = detail::state_of(one);
  const Event outside = two.record();
  stream.begin_recording();
  CHECK_THROWS_AS(one.synchronize(), Error);
  CHECK_THROWS_AS(one.wait(outside), Error);
  const Event recorded = one.record();
  CHECK_THROWS_AS(recorded.done(), Error);
  CHECK_THROWS_AS(recorded.wait(), Error);
  two.wait(recorded);
  int runs = 0;
  two.enqueue([&] { ++runs; });
  CHECK_THROWS_WITH_AS(stream.end_recording(), doctest::Contains("joined"), Error);
  CHECK_THROWS_AS(two.wait(recorded), Error);

  stream.begin_recording();
  CHECK_THROWS_AS(one.wait(recorded), Error);  // of the recording before
  CHECK_THROWS_AS(outside.done(), Error);
  CHECK_THROWS_AS(two.synchronize(), Error);
  two.wait(one.record());
  two.enqueue([&] { ++runs; });
  one.wait(two.record());
  const auto recording = stream.end_recording();
  one.synchronize();
  two.synchronize();
  CHECK(runs == 0);
  for (int i = 0; i < 3; ++i) recording->launch();
  one.synchronize();
  CHECK(runs == 3);
}

}  // namespace ashlar
