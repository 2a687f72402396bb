// Recomputation in a training step: fewer bytes for more operations, and not one other bit.
#include <doctest/doctest.h>

#include <bit>
#include <mutex>

#include "ashlar/communicator.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/train_step.hpp"
#include "base/math/philox.hpp"

namespace ashlar {
namespace {

const GptConfig kConfig{
    .layers = 4, .heads = 2, .width = 32, .positions = 32, .vocabulary = 61, .inner = 128};

struct Outcome {
  std::vector<std::uint32_t> losses;
  std::int64_t activations = 0, planned = 0;
  double flops = 0;
};

Outcome train(int ranks, DType dtype, Recompute recompute) {
  Outcome outcome;
  std::mutex mutex;
  launch_threads(ranks, [&](Communicator& world) {
    GptTrace how{.batch = 2, .sequence = 32, .dtype = dtype, .dropout = 0.1, .frozen = {}};
    TrainConfig config;
    config.zero.stage = 3;
    config.precision.parameter = config.precision.reduce = dtype;
    config.micro_batches = 2;
    config.clip = 1;
    config.samples = how.batch;
    config.recompute = recompute;
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
    }
    mine.planned = step.planned().peak[static_cast<std::size_t>(Category::activation)];
    if (world.rank() != 0) return;
    const std::scoped_lock lock(mutex);
    outcome = mine;
  });
  return outcome;
}

}  // namespace

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
