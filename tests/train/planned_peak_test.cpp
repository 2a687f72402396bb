// What a step counted is what the plan predicted, byte for byte and in every category: random
// small models of both families in random settings, with every buffer also allocated apart.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <numeric>
#include <random>

#include "ashlar/communicator.hpp"
#include "ashlar/nn/language_model.hpp"
#include "ashlar/ops.hpp"
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
  return fmt::format("{} ranks, group {}, stage {}, {}, K {}, order {}, recompute {}, prefetch {}",
                     ranks, c.zero.group, c.zero.stage, name_of(c.precision.parameter),
                     c.micro_batches, static_cast<int>(c.order), static_cast<int>(c.recompute),
                     c.zero.prefetch);
}

/// Fills inputs of any shape: tokens or classes, and images.
void load(const Batch& batch, std::uint32_t seed) {
  std::mt19937 random(seed);
  for (const auto& [name, view] : batch) {
    if (view.dtype == DType::f32) {
      for (float& x : view.span<float>()) x = static_cast<float>(random() % 256) / 256;
    } else {
      for (std::int32_t& token : view.span<std::int32_t>())
        token = static_cast<std::int32_t>(random() % kVocabulary);
    }
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
  std::vector<std::string> names;
  const auto remember = [&](const Program& program) {
    for (const auto& [name, operands] : program.inputs) names.push_back(name);
  };
  TrainStep step(world, loss, config, {}, {remember, [&](Executor& bound) {
                                             executor = &bound;
                                             bound.live().allocate_apart(&apart);
                                           }});
  step.step([&](std::int64_t k, const Batch&) {
    const int held = config.order == MicroBatchOrder::layers ? static_cast<int>(k) : 0;
    Batch inputs;
    for (const std::string& name : names) inputs.emplace(name, executor->input(name, held));
    load(inputs, static_cast<std::uint32_t>(k));
  });
  if (world.rank() != 0) return;
  for (std::size_t c = 0; c < kCategories; ++c)
    CHECK(apart.peak()[c] + step.state_bytes()[c] == planned.peak[c]);
}

/// Two convolutions and a head, or three layers of a perceptron, on images of 8 x 8.
Value classifier_loss(Tracer& t, bool convolutions, DType dtype) {
  const auto weight = [&](const char* name, const Shape& shape) {
    return t.parameter({.name = name,
                        .shape = shape,
                        .dtype = dtype,
                        .initializer = {Initializer::Kind::normal, 0.1}});
  };
  Value x = cast(t.input("images", DType::f32, {3, 8, 8, 1}), dtype);
  {
    const auto unit = t.unit("below");
    if (convolutions) {
      x = conv2d(x, weight("conv1", {3, 3, 1, 4}), weight("bias1", {4}), {.padding = 1});
      x = conv2d(gelu(max_pool2d(x, 2)), weight("conv2", {3, 3, 4, 6}), {}, {.padding = 1});
      x = reshape(gelu(max_pool2d(x, 2)), {3, 24});
    } else {
      x = linear_gelu(reshape(x, {3, 64}), weight("up", {64, 30}), weight("up.bias", {30}));
      x = linear_gelu(x, weight("middle", {30, 24}), weight("middle.bias", {24}));
    }
  }
  const auto unit = t.unit("head");
  x = linear(x, weight("head", {24, kVocabulary}), weight("head.bias", {kVocabulary}));
  return cross_entropy(x, t.input("classes", DType::i32, {3}));
}

/// Two steps, then one with every buffer allocated apart.
void check_step(int ranks, const LossModel& loss, const TrainConfig& config) {
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

/// Between what keeping everything and remaking whole units take.
std::int64_t some_budget(int ranks, const LossModel& loss, TrainConfig config) {
  std::int64_t sum = 0;
  for (const Recompute how : {Recompute::none, Recompute::per_unit}) {
    config.recompute = how;
    launch_threads(ranks, [&](Communicator& world) {
      const std::int64_t total = TrainStep(world, loss, config).planned().total;
      if (world.rank() == 0) sum += total;
    });
  }
  return sum / 2;
}

}  // namespace

TEST_CASE("planned peak: random models in random settings use what the plan says, to the byte") {
  std::mt19937 random(17);
  for (int trial = 0; trial < 60; ++trial) {
    const LanguageModel model = random_model(random);
    TrainConfig config = random_config(random);
    int ranks = static_cast<int>(1 + random() % 3);
    if (trial % 5 == 4) {
      ranks = 4;
      config.zero.group = 2;
    }
    const ModelTrace how{.batch = static_cast<std::int64_t>(1 + random() % 2),
                         .sequence = static_cast<std::int64_t>(4 + random() % 8),
                         .dtype = config.precision.parameter,
                         .dropout = 0,
                         .frozen = {}};
    CAPTURE(trial);
    CAPTURE(describe(config, ranks));
    const LossModel loss = [&](Tracer& t) { return model.loss(t, how); };
    if (trial % 20 == 0) {  // each rank of each step searches for a second
      config.memory_budget = some_budget(ranks, loss, config);
      config.recompute = Recompute::budget;
    }
    check_step(ranks, loss, config);
  }
}

TEST_CASE("planned peak: a perceptron and a convolutional network, every stage, f32 and bf16") {
  for (int stage = 0; stage <= 3; ++stage) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const bool convolutions : {false, true}) {
        TrainConfig config;
        config.zero.stage = stage;
        config.precision = {dtype, dtype};
        config.samples = 3;
        config.micro_batches = 1 + stage % 2;
        config.clip = 1;
        CAPTURE(describe(config, 2));
        CAPTURE(convolutions);
        check_step(
            2, [&](Tracer& t) { return classifier_loss(t, convolutions, dtype); }, config);
      }
    }
  }
}

}  // namespace ashlar
