// Recomputation in a training step: fewer bytes for more operations, and not one other bit.
#include <doctest/doctest.h>

#include <bit>
#include <mutex>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/train_step.hpp"
#include "base/math/philox.hpp"

namespace ashlar {
namespace {

const GptConfig kConfig{
    .layers = 4, .heads = 2, .width = 32, .positions = 32, .vocabulary = 61, .inner = 128};

struct Outcome {
  std::vector<std::uint32_t> losses;
  std::int64_t activations = 0, planned = 0, total = 0;
  double flops = 0;
};

Outcome train(int ranks, DType dtype, Recompute recompute, std::int64_t budget = 0) {
  Outcome outcome;
  std::mutex mutex;
  launch_threads(ranks, [&](Communicator& world) {
    ModelTrace how{.batch = 2, .sequence = 32, .dtype = dtype, .dropout = 0.1, .frozen = {}};
    TrainConfig config;
    config.zero.stage = 3;
    config.precision.parameter = config.precision.reduce = dtype;
    config.micro_batches = 2;
    config.clip = 1;
    config.samples = how.batch;
    config.recompute = recompute;
    config.memory_budget = budget;
    config.poison = true;
    TrainStep step(
        world, [&](Tracer& t) { return gpt_loss(t, kConfig, how); }, config);
    Outcome mine;
    for (int i = 0; i < 3; ++i) {
      const StepResult result = step.step([&](std::int64_t micro_batch, const Batch& batch) {
        for (const auto& [name, view] : batch) {
          const auto tokens = view.span<std::int32_t>();
          for (std::size_t e = 0; e < tokens.size(); ++e) {
            const auto stream =
                static_cast<std::uint64_t>((i * 2 + micro_batch) * 7 + world.rank());
            tokens[e] = static_cast<std::int32_t>(philox(name.size(), stream, e)[0] % 61);
          }
        }
      });
      mine.losses.push_back(std::bit_cast<std::uint32_t>(result.loss));
      mine.activations = result.memory.peak[static_cast<std::size_t>(Category::activation)];
      mine.flops = result.flops;
      mine.total = result.memory.total;
    }
    mine.planned = step.planned().peak[static_cast<std::size_t>(Category::activation)];
    if (world.rank() != 0) return;
    const std::scoped_lock lock(mutex);
    outcome = mine;
  });
  return outcome;
}

}  // namespace

TEST_CASE("recompute: a budget is met by the least work, and one that cannot be met is refused") {
  const Outcome all = train(2, DType::f32, Recompute::none);
  Outcome before = all;
  for (const double share : {1.0, 0.9, 0.8, 0.76}) {
    CAPTURE(share);
    const auto budget = static_cast<std::int64_t>(share * static_cast<double>(all.total));
    const Outcome now = train(2, DType::f32, Recompute::budget, budget);
    CHECK(now.losses == all.losses);
    CHECK(now.total <= budget);
    CHECK(now.total <= before.total);
    CHECK(now.flops >= before.flops);
    if (share == 1.0) CHECK(now.flops == all.flops);
    before = now;
  }
  CHECK_THROWS_WITH_AS(
      train(2, DType::f32, Recompute::budget, all.total / 10),
      doctest::Contains("cannot be met: with recomputation the step needs at least"),
      InvalidArgument);
}

TEST_CASE("recompute: the same bits in fewer bytes, measured, for more operations, counted") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int ranks : {1, 2}) {
      CAPTURE(name_of(dtype));
      CAPTURE(ranks);
      Outcome before = train(ranks, dtype, Recompute::none);
      CHECK(before.losses[0] != before.losses[2]);
      for (const Recompute how : {Recompute::cheap, Recompute::selective, Recompute::per_unit}) {
        CAPTURE(static_cast<int>(how));
        const Outcome now = train(ranks, dtype, how);
        CHECK(now.losses == before.losses);
        CHECK(now.activations < before.activations);
        CHECK(now.activations == now.planned);
        CHECK(now.flops > before.flops);
        before = now;
      }
    }
  }
}

}  // namespace ashlar
