// What a step counted is what the plan predicted, byte for byte and in every category: random
// small models of both families in random settings, with every buffer also allocated apart.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <numeric>
#include <random>

#include "ashlar/communicator.hpp"
#include "ashlar/nn/language_model.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/decorators.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kVocabulary = 29, kPositions = 12;

template <typename T>
T one_of(std::mt19937& random, std::initializer_list<T> choices) {
  return choices.begin()[random() % choices.size()];
}

LanguageModel random_model(std::mt19937& random) {
  const auto layers = static_cast<std::int64_t>(1 + random() % 3);
  const auto heads = one_of<std::int64_t>(random, {1, 2, 4});
  const auto head_size = one_of<std::int64_t>(random, {4, 8});
  const auto inner = static_cast<std::int64_t>(8 + random() % 40);
  const bool tied = random() % 2 == 0;
  if (random() % 2 == 0) {
    return GptConfig{"random", layers, heads, heads * head_size, kPositions, kVocabulary,
                     inner,    tied,   1e-5};
  }
  return LlamaConfig{.name = "random",
                     .layers = layers,
                     .heads = heads,
                     .kv_heads = heads == 1 ? 1 : heads / 2,
                     .head_size = head_size,
                     .width = heads * head_size,
                     .inner = inner,
                     .positions = kPositions,
                     .vocabulary = kVocabulary,
                     .tied = tied};
}

TrainConfig random_config(std::mt19937& random) {
  TrainConfig config;
  config.zero.stage = static_cast<int>(random() % 4);
  config.zero.bucket_bytes = one_of<std::int64_t>(random, {1, 3000, 1 << 20});
  config.zero.prefetch = static_cast<int>(random() % 4);
  config.zero.overlap = random() % 4 != 0;
  config.zero.reshard_after_forward = random() % 4 != 0;
  const DType dtype = one_of(random, {DType::f32, DType::bf16});
  config.precision = {dtype, one_of(random, {dtype, DType::f32})};
  config.micro_batches = static_cast<std::int64_t>(1 + random() % 3);
  config.order = one_of(random, {MicroBatchOrder::micro_batches, MicroBatchOrder::layers});
  config.recompute = one_of(random, {Recompute::automatic, Recompute::none, Recompute::cheap,
                                     Recompute::selective, Recompute::per_unit});
  config.clip = one_of(random, {0.0, 0.5});
  config.poison = random() % 2 == 0;
  return config;
}

std::string describe(const TrainConfig& c, int ranks) {
  return fmt::format("{} ranks, stage {}, {}, K {}, order {}, recompute {}, prefetch {}", ranks,
                     c.zero.stage, name_of(c.precision.parameter), c.micro_batches,
                     static_cast<int>(c.order), static_cast<int>(c.recompute), c.zero.prefetch);
}

/// Fills token inputs of any shape.
void load(const Batch& batch, std::uint32_t seed) {
  std::mt19937 random(seed);
  for (const auto& [name, view] : batch) {
    for (std::int32_t& token : view.span<std::int32_t>())
      token = static_cast<std::int32_t>(random() % kVocabulary);
  }
}

void check(const MemoryUse& measured, const MemoryUse& planned) {
  CHECK(measured.peak == planned.peak);
  CHECK(measured.at_peak == planned.at_peak);
  CHECK(measured.padding == planned.padding);
  CHECK(measured.fragmentation == planned.fragmentation);
  CHECK(measured.total == planned.total);
}

/// What a resource is asked for when each buffer is allocated at its first use and freed after its
/// last.
void check_apart(Communicator& world, const LossModel& loss, const TrainConfig& config,
                 const MemoryUse& planned) {
  StatisticsAdaptor apart(host_memory());
  Executor* executor = nullptr;
  TrainStep step(world, loss, config, {}, {{}, [&](Executor& bound) {
                                             executor = &bound;
                                             bound.live().allocate_apart(&apart);
                                           }});
  step.step([&](std::int64_t k, const Batch&) {
    const int held = config.order == MicroBatchOrder::layers ? static_cast<int>(k) : 0;
    load({{"tokens", executor->input("tokens", held)},
          {"targets", executor->input("targets", held)}},
         static_cast<std::uint32_t>(k));
  });
  if (world.rank() != 0) return;
  for (std::size_t c = 0; c < kCategories; ++c)
    CHECK(apart.peak()[c] + step.state_bytes()[c] == planned.peak[c]);
}

}  // namespace

TEST_CASE("planned peak: random models in random settings use what the plan says, to the byte") {
  std::mt19937 random(17);
  for (int trial = 0; trial < 60; ++trial) {
    const LanguageModel model = random_model(random);
    const TrainConfig config = random_config(random);
    const int ranks = static_cast<int>(1 + random() % 3);
    const ModelTrace how{.batch = static_cast<std::int64_t>(1 + random() % 2),
                         .sequence = static_cast<std::int64_t>(4 + random() % 8),
                         .dtype = config.precision.parameter,
                         .dropout = 0,
                         .frozen = {}};
    CAPTURE(trial);
    CAPTURE(describe(config, ranks));
    const LossModel loss = [&](Tracer& t) { return model.loss(t, how); };
    launch_threads(ranks, [&](Communicator& world) {
      TrainStep step(world, loss, config);
      for (std::uint32_t i = 0; i < 2; ++i) {
        const StepResult result = step.step([&](std::int64_t k, const Batch& batch) {
          load(batch, i * 8 + static_cast<std::uint32_t>(k));
        });
        if (world.rank() == 0) check(result.memory, step.planned());
      }
      check_apart(world, loss, config, step.planned());
    });
  }
}

}  // namespace ashlar
