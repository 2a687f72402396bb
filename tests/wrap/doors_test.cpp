// The two front doors share their checkpoints: what a TrainStep saves, a ShardedOptimizer loads,
// and the other way round.
#include <doctest/doctest.h>

#include <cstring>

#include "ashlar/checkpoint.hpp"
#include "support/temporary_folder.hpp"
#include "train/tiny_gpt.hpp"
#include "train/values_of.hpp"
#include "wrap/toy_model.hpp"

namespace ashlar::test {
namespace {

TrainConfig config_of(int stage, DType dtype) {
  TrainConfig config;
  config.zero.stage = stage;
  config.precision = {dtype, dtype};
  config.optimizer = AdamW{.ema = 0.5};
  config.schedule.lr = 0.01;
  return config;
}

TrainStep tiny_step(Communicator& world, int stage, DType dtype) {
  return {world, tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, dtype, 0, {}}),
          config_of(stage, dtype)};
}

/// The same parameters, in memory of the optimizer; in other units, and of other first values.
ParameterList list_of(const FlatLayout& layout) {
  ParameterList list;
  for (const Parameter& p : layout.parameters())
    list.allocate(p.name, p.shape, p.dtype, {.decay = p.decay});
  return list;
}

std::vector<float> values_of(const ShardedOptimizer& optimizer, bool average) {
  std::vector<float> all;
  for (const Parameter& parameter : optimizer.layout().parameters()) {
    std::vector<float> values(static_cast<std::size_t>(parameter.shape.elements()));
    optimizer.read(parameter.name, {values.data(), DType::f32, parameter.shape},
                   {.average = average});
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

/// Compares all that a checkpoint holds, bit by bit. @return elements of averages among it
std::int64_t equal_shards(const std::vector<ShardView>& a, const std::vector<ShardView>& b) {
  std::int64_t averages = 0;
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(a[i].role);
    REQUIRE(a[i].role == b[i].role);
    REQUIRE(a[i].values.bytes() == b[i].values.bytes());
    CHECK(std::memcmp(a[i].values.data, b[i].values.data,
                      static_cast<std::size_t>(a[i].values.bytes())) == 0);
    if (a[i].role == "ema") averages += a[i].values.elements();
  }
  return averages;
}

void train(TrainStep& step, Communicator& world) {
  step.step(
      [&](std::int64_t, const Batch& batch) { load_tokens(batch, step.steps(), world.rank()); });
}

}  // namespace

TEST_CASE("doors: a checkpoint of either loads through the other and goes on with equal bits") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [traced, wrapped] : {std::pair(3, 2), std::pair(1, 3), std::pair(0, 1)}) {
      CAPTURE(name_of(dtype));
      CAPTURE(traced);
      const TemporaryFolder folder;
      launch_threads(2, [&, traced = traced, wrapped = wrapped](Communicator& world) {
        TrainStep step = tiny_step(world, traced, dtype);
        for (int i = 0; i < 2; ++i) train(step, world);
        save_checkpoint(world, folder.path / "a", step.layout(), step.shards(), R"({"step": 2})");
        ShardedOptimizer optimizer(list_of(step.layout()), world, AdamW{.ema = 0.5},
                                   {.stage = wrapped});
        optimizer.load(folder.path / "a");
        CHECK(optimizer.steps() == 2);
        const auto saved = bits_of(values_of(step)), loaded = bits_of(values_of(optimizer, false)),
                   average = bits_of(values_of(optimizer, true));
        if (world.rank() == 0) {  // who gets them
          CHECK(loaded == saved);
          CHECK(average != saved);
        }

        optimizer.save(folder.path / "b");
        TrainStep next = tiny_step(world, traced, dtype);
        load_checkpoint(world, folder.path / "b", next.layout(), next.shards());
        next.restore_from_shards();
        next.set_steps(2);
        CHECK(equal_shards(next.shards(), step.shards()) > 0);
        train(step, world);
        train(next, world);
        CHECK(bits_of(values_of(next)) == bits_of(values_of(step)));
      });
    }
  }
}

}  // namespace ashlar::test
