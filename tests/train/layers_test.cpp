// Micro-batches through one unit after the other: the bits of the usual order with one reduction,
// a unit gathered twice however many micro-batches there are, gradients never whole.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <functional>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kSteps = 5;

struct Case {
  int ranks = 2, stage = 3;
  std::int64_t k = 3;
  DType dtype = DType::f32, wire = DType::f32;
  bool tied = true, reshard = true;
  std::vector<std::string> frozen = {};
  double clip = 0.5;
  int prefetch = 1;
  Recompute recompute = Recompute::automatic;
  std::int64_t layers = 3;
};

struct Outcome {
  std::vector<std::uint32_t> losses;
  std::vector<double> norms;
  MemoryUse measured, planned;
  PerCategory<std::int64_t> states{};
  SentBytes sent{};  // of the last step
  double flops = 0;
  std::int64_t two_units = 0, tied_unit = 0;  // bytes of f32: the largest ones, the one with wte
};

std::int64_t of(const PerCategory<std::int64_t>& bytes, Category category) {
  return bytes[static_cast<std::size_t>(category)];
}

TrainConfig config_of(const Case& c, MicroBatchOrder order) {
  TrainConfig config;
  config.zero = {c.stage, 4000, c.prefetch, true, c.reshard};
  config.precision = {c.dtype, c.wire};
  config.schedule.lr = 0.01;
  config.clip = c.clip;
  config.micro_batches = c.k;
  config.reduce = ReduceWhen::last;
  config.order = order;
  config.recompute = c.recompute;
  config.poison = true;
  return config;
}

Outcome train(const Case& c, MicroBatchOrder order) {
  Outcome outcome;
  launch_threads(c.ranks, [&](Communicator& world) {
    const LossModel model =
        tiny_gpt_loss(tiny_gpt(c.layers, c.tied), {1, kTinySequence, c.dtype, 0.1, c.frozen});
    TrainStep train(world, model, config_of(c, order));
    Outcome mine;
    for (std::int64_t i = 0; i < kSteps; ++i) {
      const SentBytes before = world.sent_bytes();
      const StepResult result = train.step([&](std::int64_t k, const Batch& batch) {
        load_tokens(batch, i * c.k + k, world.rank());
      });
      mine.losses.push_back(std::bit_cast<std::uint32_t>(result.loss));
      mine.norms.push_back(result.grad_norm);
      mine.measured = result.memory;
      mine.flops = result.flops;
      for (std::size_t t = 0; t < before.size(); ++t)
        mine.sent[t] = world.sent_bytes()[t] - before[t];
    }
    mine.planned = train.planned();
    mine.states = train.state_bytes();
    std::vector<std::int64_t> units(train.layout().units().size());
    for (const Flat& flat : train.layout().flats())
      units[static_cast<std::size_t>(flat.unit)] += flat.padded * 4;
    mine.tied_unit = units[0];
    std::ranges::sort(units, std::greater());
    mine.two_units = units[0] + units[1];
    if (world.rank() == 0) outcome = mine;
  });
  return outcome;
}

void check_same(const Case& c) {
  CAPTURE(c.ranks);
  CAPTURE(c.stage);
  CAPTURE(c.k);
  CAPTURE(name_of(c.dtype));
  CAPTURE(name_of(c.wire));
  CAPTURE(c.tied);
  CAPTURE(c.reshard);
  const Outcome usual = train(c, MicroBatchOrder::micro_batches);
  const Outcome layers = train(c, MicroBatchOrder::layers);
  CHECK(layers.losses == usual.losses);
  CHECK(layers.norms == usual.norms);
  CHECK(layers.losses.front() != layers.losses.back());
  CHECK(layers.measured.total == layers.planned.total);
  CHECK(layers.measured.peak == layers.planned.peak);
  CHECK(layers.measured.at_peak == layers.planned.at_peak);
  CHECK(layers.measured.padding == layers.planned.padding);
}

}  // namespace

TEST_CASE("layers: the bits of micro-batches reduced last, every stage, worlds 1 to 4") {
  for (int ranks = 1; ranks <= 4; ++ranks) {
    for (int stage = 0; stage <= 3; ++stage) {
      check_same({ranks, stage});
      check_same({ranks, stage, 2, DType::bf16, DType::bf16, false});
      check_same({ranks, stage, 4, DType::bf16, DType::f32, true, false, {"wpe", "h.0.*.bias"}});
      check_same({ranks, stage, 1, DType::f32, DType::f32, true, true, {"h.1.mlp"}, 0, 3});
      check_same({ranks, stage, 3, DType::f32, DType::f32, false, true, {}, 0, 0, Recompute::none});
    }
  }
}

TEST_CASE("layers: what is sent does not depend on the number of micro-batches") {
  for (const bool tied : {true, false}) {
    for (const int ranks : {2, 3}) {
      CAPTURE(tied);
      CAPTURE(ranks);
      const Outcome one = train({.ranks = ranks, .k = 1, .tied = tied}, MicroBatchOrder::layers);
      CHECK(one.sent ==
            train({.ranks = ranks, .k = 1, .tied = tied}, MicroBatchOrder::micro_batches).sent);
      for (const std::int64_t k : {2, 5}) {
        const Case c{.ranks = ranks, .k = k, .tied = tied};
        const Outcome layers = train(c, MicroBatchOrder::layers);
        const Outcome usual = train(c, MicroBatchOrder::micro_batches);
        CHECK(layers.sent == one.sent);
        const auto gathered = static_cast<std::size_t>(Traffic::all_gather);
        CHECK(usual.sent[gathered] >= k * layers.sent[gathered] * 9 / 10);
      }
    }
  }
}

TEST_CASE("layers: gradients are kept in shards; inputs and what enters units, K times") {
  const Case one{.k = 1, .clip = 0}, four{.k = 4, .clip = 0};
  const Outcome layers = train(four, MicroBatchOrder::layers);
  const Outcome usual = train(four, MicroBatchOrder::micro_batches);
  const Outcome single = train(one, MicroBatchOrder::layers);
  CHECK(of(layers.states, Category::gradient) * 2 == of(usual.states, Category::gradient));
  CHECK(of(layers.measured.peak, Category::input) == 4 * of(usual.measured.peak, Category::input));
  // Three micro-batches more: embedding's output and each block's input and output.
  const std::int64_t boundary = kTinySequence * 16 * 4, more = 3 * (3 + 1) * boundary;
  const std::int64_t grown = of(layers.measured.peak, Category::activation) -
                             of(single.measured.peak, Category::activation);
  CHECK(grown >= more);
  CHECK(grown <= 2 * more);
}

TEST_CASE("layers: no more gradients are whole at a time than two units' and the tied ones'") {
  for (const bool tied : {true, false}) {
    for (const std::int64_t k : {1, 4}) {
      CAPTURE(tied);
      CAPTURE(k);
      const Case c{.k = k, .tied = tied, .layers = 8};
      const Outcome layers = train(c, MicroBatchOrder::layers);
      const std::int64_t whole = of(layers.measured.peak, Category::communication);
      CHECK(whole > 0);
      CHECK(whole <= layers.two_units + (tied ? layers.tied_unit : 0));
      CHECK(whole < of(layers.states, Category::parameter) * c.ranks);
    }
  }
}

TEST_CASE("layers: a reduction after each micro-batch is refused") {
  launch_threads(1, [](Communicator& world) {
    TrainConfig config = config_of({}, MicroBatchOrder::layers);
    config.reduce = ReduceWhen::each;
    const LossModel model = tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, DType::f32, 0, {}});
    CHECK_THROWS_WITH_AS(TrainStep(world, model, config), doctest::Contains("'layers'"),
                         InvalidArgument);
  });
}

}  // namespace ashlar
