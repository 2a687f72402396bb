// Recomputation in a training step: fewer bytes for more operations, and not one other bit.
#include <doctest/doctest.h>

#include <bit>
#include <mutex>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "ashlar/nn/gpt.hpp"
#include "base/math/philox.hpp"
#include "graph/recompute_search.hpp"
#include "ops/product/machine.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {
namespace {

const GptConfig kConfig{
    .layers = 4, .heads = 2, .width = 32, .positions = 32, .vocabulary = 61, .inner = 128};

struct Outcome {
  std::vector<std::uint32_t> losses;
  std::int64_t activations = 0, planned = 0, total = 0;
  double flops = 0;
  SentBytes sent{};
};

constexpr std::int64_t kMicroBatches = 2;

ModelTrace trace_of(DType dtype) {
  return {.batch = 2, .sequence = 32, .dtype = dtype, .dropout = 0.1, .frozen = {}};
}

TrainConfig config_of(DType dtype, Recompute recompute, std::int64_t budget) {
  TrainConfig config;
  config.zero.stage = 3;
  config.precision.parameter = config.precision.reduce = dtype;
  config.micro_batches = kMicroBatches;
  config.clip = 1;
  config.samples = trace_of(dtype).batch;
  config.recompute = recompute;
  config.memory_budget = budget;
  config.poison = true;
  return config;
}

LossModel model_of(DType dtype) {
  return [how = trace_of(dtype)](Tracer& t) { return gpt_loss(t, kConfig, how); };
}

Outcome train(int ranks, DType dtype, Recompute recompute, std::int64_t budget = 0) {
  Outcome outcome;
  std::mutex mutex;
  launch_threads(ranks, [&](Communicator& world) {
    TrainStep step(world, model_of(dtype), config_of(dtype, recompute, budget));
    Outcome mine;
    for (int i = 0; i < 3; ++i) {
      const StepResult result = step.step([&](std::int64_t micro_batch, const Batch& batch) {
        for (const auto& [name, view] : batch) {
          const auto tokens = view.span<std::int32_t>();
          for (std::size_t e = 0; e < tokens.size(); ++e) {
            const auto stream =
                static_cast<std::uint64_t>((i * kMicroBatches + micro_batch) * 7 + world.rank());
            tokens[e] = static_cast<std::int32_t>(philox(name.size(), stream, e)[0] % 61);
          }
        }
      });
      mine.losses.push_back(std::bit_cast<std::uint32_t>(result.loss));
      mine.activations = result.memory.peak[static_cast<std::size_t>(Category::activation)];
      mine.flops = result.flops;
      mine.total = result.memory.total;
    }
    mine.sent = world.sent_bytes();
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
    CHECK(now.sent == all.sent);
    if (share == 1.0) CHECK(now.flops == all.flops);
    before = now;
  }
  CHECK_THROWS_WITH_AS(
      train(2, DType::f32, Recompute::budget, all.total / 10),
      doctest::Contains("cannot be met: with recomputation the step needs at least"),
      InvalidArgument);
}

TEST_CASE("recompute: a choice adds the operations that it says, as the step counts them") {
  constexpr int kRanks = 2;
  const TrainConfig config = config_of(DType::f32, Recompute::none, 0);
  const ShardOptions options = shard_options(config, kRanks);
  const Backend backend = host_backend(config.threads);
  const Graph joint = trace_training(model_of(DType::f32), options);
  const FlatLayout layout(joint.parameters, joint.units, kRanks);
  const auto choices =
      recompute_choices(joint, backend, true, [&](const Graph& graph) -> PlannedHeight {
        StateLayout states;
        const Graph sharded = shard_step(graph, layout, options, backend);
        const ScheduleOptions order{config.zero.prefetch, config.zero.overlap};
        return {planned_peak(compile(sharded, order, backend, states), states).total,
                std::ssize(sharded.nodes)};
      });
  REQUIRE(choices.size() > 4);
  const Outcome all = train(kRanks, DType::f32, Recompute::none);
  for (const std::size_t i : {choices.size() / 2, choices.size() - 1}) {
    const Outcome now = train(kRanks, DType::f32, Recompute::budget, choices[i].height);
    CHECK(now.total == choices[i].height);
    CHECK(now.flops - all.flops ==
          doctest::Approx(kMicroBatches * choices[i].extra_flops).epsilon(1e-9));
    CHECK(choices[i].extra_flops > 0);
  }
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
