// A small GPT's run on an emulated device, and what of it is compared.
#pragma once

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "cuda/kernels.hpp"
#include "ops/product/machine.hpp"
#include "sharding/train_step_parts.hpp"
#include "support/late_device.hpp"
#include "train/tiny_gpt.hpp"
#include "train/values_of.hpp"

namespace ashlar::test {

using Ahead = LateDevice::Ahead;

inline constexpr std::int64_t kSteps = 5;

struct Run {
  int ranks = 1, stage = 0;
  DType dtype = DType::f32;
  Ahead ahead = Ahead::nothing;
  unsigned seed = 1;
  int lost_sum = -1, lost_join = -1;
  std::int64_t steps = kSteps, layers = 2, warmup = 0, micro_batches = 3;
  int group = 0;
  OptimizerConfig optimizer = AdamW{};
};

struct Outcome {
  std::vector<float> losses;
  std::vector<std::uint64_t> bits;  // of losses, norms and, at the end, parameters
  int sums = 0, joins = 0;
  int replayed = 0;  // steps
};

inline TrainConfig config_of(const Run& run) {
  TrainConfig config;
  config.zero = {run.stage, 5000, 1};
  config.zero.group = run.group;
  config.precision = {run.dtype, run.dtype};
  config.optimizer = run.optimizer;
  config.schedule.lr = 0.01;
  config.schedule.warmup = run.warmup;
  config.clip = 0.5;
  config.micro_batches = run.micro_batches;
  config.reduce = ReduceWhen::each;
  config.seed = 3;
  config.poison = true;
  return config;
}

inline LossModel model_of(const Run& run) {
  return tiny_gpt_loss(tiny_gpt(run.layers), {1, kTinySequence, run.dtype, 0.1, {}});
}

inline DeviceSide emulated(StreamRef stream) {
  DeviceSide side{host_backend(1), {stream}};
  side.backend.find_kernel = cuda::find_kernel;
  return side;
}

/// @param device null: the CPU @param bound see TrainStep::Hooks
inline Outcome train_rank(Communicator& world, const Run& run, const DeviceSide* device,
                          MemoryResource& memory = host_memory(),
                          const std::function<void(Executor&)>& bound = {}) {
  TrainConfig config = config_of(run);
  config.memory = &memory;
  TrainStep step(world, model_of(run), config, {}, {{}, bound, device});
  Outcome outcome;
  for (std::int64_t i = 0; i < run.steps; ++i) {
    const StepResult result = step.step([&](std::int64_t k, const Batch& batch) {
      load_tokens(batch, k, world.rank());  // the same in each step
    });
    outcome.losses.push_back(result.loss);
    outcome.bits.push_back(std::bit_cast<std::uint32_t>(result.loss));
    outcome.bits.push_back(std::bit_cast<std::uint64_t>(result.grad_norm));
    CHECK(result.memory.peak == step.planned().peak);
    CHECK(result.memory.total == step.planned().total);
    outcome.replayed += result.replayed ? 1 : 0;
  }
  for (const float value : values_of(step))
    outcome.bits.push_back(std::bit_cast<std::uint32_t>(value));
  return outcome;
}

inline void check_close(const Outcome& a, const Outcome& b, double tolerance) {
  REQUIRE(a.losses.size() == b.losses.size());
  for (std::size_t i = 0; i < a.losses.size(); ++i)
    CHECK(std::abs(a.losses[i] - b.losses[i]) <= tolerance * std::abs(b.losses[i]));
}

}  // namespace ashlar::test
