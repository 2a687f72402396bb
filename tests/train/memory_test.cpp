// No rank ever holds the whole model at stage 3: what the resources handed out, counted by
// adaptors around all that a rank allocates from, while it initialises and while it trains.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "ashlar/communicator.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/decorators.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {
namespace {

/// Wide and deep enough that a few units and all else are less than the whole.
const GptConfig kModel{"memory", 20, 2, 64, kTinySequence, 37, 256, true, 1e-5};

struct Case {
  DType dtype = DType::f32;
  int stage = 3;
  bool reshard = true;
  int prefetch = 1;
  std::vector<std::string> frozen = {};
};

struct Held {
  std::int64_t total = 0;            // the most that one rank ever held
  std::int64_t made = 0;             // the most when it had been made
  std::int64_t gathered = 0;         // gathered_parameter, every buffer allocated apart
  std::int64_t whole = 0;            // bytes of all parameters, no padding
  std::int64_t shard = 0;            // bytes of one rank's parameters
  std::int64_t largest_unit = 0;     // bytes
  std::int64_t trainable_share = 0;  // padded elements per rank
};

TrainConfig config_of(const Case& c) {
  TrainConfig config;
  config.zero = {c.stage, 1, c.prefetch, true, c.reshard};
  config.precision = {c.dtype, c.dtype};
  config.poison = true;
  return config;
}

std::int64_t live_bytes(const StatisticsAdaptor& resource) {
  const PerCategory<std::int64_t> live = resource.live();
  return std::accumulate(live.begin(), live.end(), std::int64_t{0});
}

/// Rank 0's, which has no less than the others.
Held train(int ranks, const Case& c, std::int64_t limit = 1 << 30) {
  Held held;
  launch_threads(ranks, [&](Communicator& threads) {
    LimitAdaptor limited(host_memory(), limit);
    StatisticsAdaptor all(limited), shared(static_cast<MemoryResource&>(all)), apart(host_memory());
    WithWindow world(threads, shared);
    TrainConfig config = config_of(c);
    config.memory = &all;
    const LossModel model = tiny_gpt_loss(kModel, {1, kTinySequence, c.dtype, 0, c.frozen});
    std::optional<TrainStep> step(std::in_place, world, model, config, std::vector<ForwardModel>{});
    const std::int64_t made = all.peak_total();
    CHECK(live_bytes(all) == step->allocated_bytes());
    CHECK(live_bytes(shared) == step->window_bytes());
    CHECK(step->planned().total == step->allocated_bytes());
    for (std::int64_t i = 0; i < 2; ++i) {
      const StepResult result = step->step(
          [&](std::int64_t, const Batch& batch) { load_tokens(batch, i, world.rank()); });
      CHECK(std::isfinite(result.loss));
      CHECK(result.memory.total == live_bytes(all));
    }
    CHECK(all.peak_total() == live_bytes(all));
    if (world.rank() == 0) {
      const FlatLayout& layout = step->layout();
      held.total = all.peak_total();
      held.made = made;
      held.whole = layout.elements() * size_of(c.dtype);
      held.shard = layout.padded() / ranks * size_of(c.dtype);
      held.trainable_share = layout.padded(true) / ranks;
      std::vector<std::int64_t> units(layout.units().size());
      for (const Flat& flat : layout.flats())
        units[static_cast<std::size_t>(flat.unit)] += flat.padded * size_of(c.dtype);
      held.largest_unit = *std::max_element(units.begin(), units.end());
    }
    step.reset();
    CHECK(all.live() == PerCategory<std::int64_t>{});

    Executor* executor = nullptr;
    const TrainStep::Hooks hooks{{}, [&](Executor& made_apart) {
                                   executor = &made_apart;
                                   executor->live().allocate_apart(&apart);
                                 }};
    step.emplace(threads, model, config, std::vector<ForwardModel>{}, hooks);
    step->step([&](std::int64_t, const Batch&) {
      load_tokens({{"tokens", executor->input("tokens")}, {"targets", executor->input("targets")}},
                  0, world.rank());
    });
    step.reset();
    CHECK(apart.live() == PerCategory<std::int64_t>{});
    if (world.rank() == 0)
      held.gathered = apart.peak()[static_cast<std::size_t>(Category::gathered_parameter)];
  });
  return held;
}

/// All that is not a rank's share of gradients and AdamW's state: an upper bound on parameters.
std::int64_t parameters_and_transients(const Held& held, DType dtype) {
  return held.total - held.trainable_share * (dtype == DType::f32 ? 4 + 8 : 2 + 12);
}

}  // namespace

TEST_CASE("memory: at stage 3 no rank ever holds the whole model, nor while it is made") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int ranks : {2, 3, 4}) {
      for (const int prefetch : {0, 1, 2}) {
        CAPTURE(ranks);
        CAPTURE(prefetch);
        const Held held = train(ranks, {dtype, 3, true, prefetch});
        CHECK(held.made <= held.total);
        CHECK(parameters_and_transients(held, dtype) < held.whole);
        CHECK(held.gathered > 0);
        CHECK(held.shard + held.gathered < held.whole);
        CHECK(held.gathered <= (prefetch + 2) * held.largest_unit);
      }
      // The same count sees whole models where there are some.
      const Held kept = train(ranks, {dtype, 3, false}), replicated = train(ranks, {dtype, 2});
      CHECK(kept.gathered >= kept.whole);
      CHECK(parameters_and_transients(kept, dtype) >= kept.whole);
      CHECK(parameters_and_transients(replicated, dtype) >= replicated.whole);
    }
  }
}

TEST_CASE("memory: a rank that may not allocate a model's bytes trains that model at stage 3") {
  const std::vector<std::string> frozen{"h.", "wte", "wpe"};
  for (const int ranks : {2, 3, 4}) {
    CAPTURE(ranks);
    const Held held = train(ranks, {DType::f32, 3, true, 1, frozen});
    CHECK(held.total < held.whole);
    const Held limited = train(ranks, {DType::f32, 3, true, 1, frozen}, held.whole - 1);
    CHECK(limited.total == held.total);
    CHECK_THROWS_AS(train(ranks, {DType::f32, 2, true, 1, frozen}, held.whole - 1), OutOfMemory);
  }
}

}  // namespace ashlar
