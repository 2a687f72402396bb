// A small GPT trained on the first GPU: the same bits at all stages, issued or replayed, over every
// communicator that serves one GPU, and the CPU's losses.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "ashlar/device_communicator.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/tiny_gpt.hpp"
#include "train/values_of.hpp"

namespace ashlar {
namespace {

constexpr Device kGpu{DeviceType::cuda, 0};

struct Run {
  int ranks = 1, stage = 0;
  DType dtype = DType::f32;
  Device device = kGpu;
  bool issued = false;  // anew in each step
  bool staged = false;  // through host memory
  bool nccl = false;    // a GPU for each rank
  int group = 0;
  std::int64_t steps = 11;
};

struct Outcome {
  std::vector<float> losses;  // of steps, then of evaluation
  std::vector<std::uint64_t> bits;
  std::int64_t replayed = 0;  // steps
};

TrainConfig config_of(const Run& run) {
  TrainConfig config;
  config.zero = {run.stage, 5000, 1};
  config.zero.group = run.group;
  config.precision = {run.dtype, run.dtype};
  config.schedule.lr = 0.01;
  config.schedule.warmup = 4;
  config.clip = 0.5;
  config.micro_batches = 3;
  config.reduce = ReduceWhen::each;
  config.seed = 3;
  config.device = run.device;
  return config;
}

Outcome train_rank(Communicator& threads, const Run& run) {
  TrainConfig config = config_of(run);
  if (run.nccl) config.device.index = threads.rank();
  const std::unique_ptr<Communicator> own = run.staged ? staged_communicator(threads, config.device)
                                            : run.nccl ? nccl_communicator(threads, config.device)
                                                       : nullptr;
  Communicator& world = own ? *own : threads;
  const auto model = [&](double dropout) {
    return tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, run.dtype, dropout, {}});
  };
  const auto watch = [&](Executor& executor) {
    if (run.issued) executor.on_event = [](const ExecutorEvent&) {};
  };
  TrainStep step(world, model(0.1), config, {[&](Tracer& t) { t.output("loss", model(0)(t)); }},
                 {{}, watch});
  Outcome outcome;
  const auto load = [&](std::int64_t k, const Batch& batch) {
    load_tokens(batch, k, threads.rank());
  };
  for (std::int64_t i = 0; i < run.steps; ++i) {
    const StepResult result = step.step(load);
    outcome.losses.push_back(result.loss);
    outcome.bits.push_back(std::bit_cast<std::uint64_t>(result.grad_norm));
    CHECK(result.memory.peak == step.planned().peak);
    outcome.replayed += result.replayed ? 1 : 0;
  }
  for (int i = 0; i < 3; ++i)
    outcome.losses.push_back(*step.forward(0, load).at("loss").as<float>());
  for (const float value : values_of(step))
    outcome.bits.push_back(std::bit_cast<std::uint32_t>(value));
  for (const float loss : outcome.losses)
    outcome.bits.push_back(std::bit_cast<std::uint32_t>(loss));
  return outcome;
}

Outcome train(const Run& run) {
  Outcome outcome;
  launch_threads(run.ranks, [&](Communicator& threads) {
    const Outcome mine = train_rank(threads, run);
    if (threads.rank() == 0) outcome = mine;
  });
  return outcome;
}

}  // namespace

TEST_CASE("train step: on a GPU the bits are the same at all stages, the first losses the CPU's") {
  constexpr std::size_t kCompared = 3;  // later ones differ by what sums in another order grow to
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int ranks : {1, 2, 4}) {
      CAPTURE(ranks);
      const Run run{.ranks = ranks, .dtype = dtype};
      const Outcome expected = train(run);
      Run on_cpu = run;
      on_cpu.device = {};
      const Outcome cpu = train(on_cpu);
      for (std::size_t i = 0; i < kCompared; ++i)
        CHECK(std::abs(expected.losses[i] - cpu.losses[i]) <=
              (dtype == DType::f32 ? 1e-4 : 2e-2) * cpu.losses[i]);
      for (const int stage : {1, 2, 3}) {
        CAPTURE(stage);
        Run other = run;
        other.stage = stage;
        CHECK(train(other).bits == expected.bits);
      }
    }
  }
}

TEST_CASE("train step: replayed steps have the bits of steps issued anew") {
  for (const int stage : {0, 3})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Outcome replayed = train({.stage = stage, .dtype = dtype});
      const Outcome issued = train({.stage = stage, .dtype = dtype, .issued = true});
      CHECK(replayed.bits == issued.bits);
      CHECK(replayed.replayed == Run{}.steps - 2);  // one is issued, one recorded
      CHECK(issued.replayed == 0);
    }
}

TEST_CASE("train step: replayed steps over NCCL have the bits of steps issued anew") {
  for (int ranks = 1; ranks <= std::min(2, device_count(DeviceType::cuda)); ++ranks)
    for (const int stage : {0, 3}) {
      const Outcome issued = train({.ranks = ranks, .stage = stage, .issued = true, .nccl = true});
      CHECK(train({.ranks = ranks, .stage = stage, .nccl = true}).bits == issued.bits);
      CHECK(train({.ranks = ranks, .stage = stage}).bits == issued.bits);
    }
}

TEST_CASE("train step: ranks that share a GPU have the bits of ranks that copy through the host") {
  for (const int stage : {0, 3})
    CHECK(train({.ranks = 2, .stage = stage}).bits ==
          train({.ranks = 2, .stage = stage, .staged = true}).bits);
  CHECK(train({.ranks = 4, .stage = 2, .group = 2}).bits ==
        train({.ranks = 4, .stage = 2, .staged = true, .group = 2}).bits);
}

TEST_CASE("train step: what a GPU has not free is refused before it is taken") {
  const GptConfig huge{"huge", 400, 2, 16384, kTinySequence + 1, 65536, 50257, true, 1e-5};
  launch_threads(1, [&](Communicator& world) {
    CHECK_THROWS_WITH_AS(
        TrainStep(world, tiny_gpt_loss(huge, {1, kTinySequence, DType::bf16, 0, {}}),
                  config_of({.dtype = DType::bf16})),
        doctest::Contains("are available on cuda:0 for 1 rank(s)"), OutOfMemory);
  });
}

}  // namespace ashlar
