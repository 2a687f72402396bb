// The spine on a model small enough to follow: every way to shard a step gives the same bits.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <bit>
#include <mutex>

#include "ashlar/communicator.hpp"
#include "ashlar/train_step.hpp"
#include "train/tiny_model.hpp"
#include "train/values_of.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kWidth = 37;  // nothing divides

struct Setting {
  int stage = 0;
  int prefetch = 1;
  std::int64_t bucket = 1 << 20;
  bool overlap = true, reshard = true;
};

struct Outcome {
  std::vector<std::uint32_t> losses;
  std::vector<float> parameters;
  bool operator==(const Outcome&) const = default;
};

Outcome train(int ranks, const Setting& setting, const TrainConfig& common, DType dtype,
              bool freeze = false) {
  Outcome outcome;
  std::mutex mutex;
  launch_threads(ranks, [&](Communicator& world) {
    TrainConfig config = common;
    config.zero = {setting.stage, setting.bucket, setting.prefetch, setting.overlap,
                   setting.reshard};
    config.samples = kBatch;
    config.poison = true;
    config.precision.parameter = dtype;
    TrainStep step(
        world, [&](Tracer& t) { return tiny_model(t, kWidth, dtype, freeze); }, config);
    std::vector<std::uint32_t> losses;
    for (int i = 0; i < 4; ++i) {
      const StepResult result = step.step([&](std::int64_t micro_batch, const Batch& batch) {
        auto x = batch.at("x").span<float>();
        const int first =
            static_cast<int>((i * config.micro_batches + micro_batch) * ranks + world.rank());
        for (std::size_t e = 0; e < x.size(); ++e)
          x[e] = std::sin(static_cast<float>(first * 1000 + static_cast<int>(e)));
      });
      losses.push_back(std::bit_cast<std::uint32_t>(result.loss));
    }
    std::vector<float> all = values_of(step);
    if (world.rank() != 0) return;
    const std::scoped_lock lock(mutex);
    outcome = {losses, std::move(all)};
  });
  return outcome;
}

}  // namespace

TEST_CASE("train step: every stage, prefetch, bucket and overlap gives the same bits") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int ranks : {1, 2, 3, 4}) {
      for (const std::int64_t k : {1, 2}) {
        for (const ReduceWhen reduce : {ReduceWhen::each, ReduceWhen::last}) {
          for (const bool freeze : {false, true}) {
            TrainConfig config;
            config.schedule.lr = 0.05;
            config.clip = 0.01;
            config.micro_batches = k;
            config.reduce = reduce;
            config.precision.reduce = dtype;
            const Outcome expected = train(ranks, {}, config, dtype, freeze);
            REQUIRE(expected.losses.size() == 4);
            CHECK(expected.losses[0] != expected.losses[3]);
            for (const Setting& other : {Setting{1}, Setting{2}, Setting{3}, Setting{3, 0, 1},
                                         Setting{3, 3, 200, true, false}, Setting{3, 2, 1, false},
                                         Setting{2, 1, 1}, Setting{0, 1, 1, false}}) {
              CAPTURE(name_of(dtype));
              CAPTURE(ranks);
              CAPTURE(k);
              CAPTURE(static_cast<int>(reduce));
              CAPTURE(other.stage);
              CAPTURE(other.prefetch);
              CAPTURE(other.bucket);
              CHECK(train(ranks, other, config, dtype, freeze) == expected);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("train step: worlds and accumulation see the same global batch") {
  TrainConfig config;
  config.schedule.lr = 0.05;
  config.clip = 0.5;
  config.micro_batches = 6;
  const Outcome expected = train(1, {}, config, DType::f32);
  for (const auto& [ranks, k] : {std::pair{2, 3}, std::pair{3, 2}, std::pair{6, 1}}) {
    config.micro_batches = k;
    const Outcome outcome = train(ranks, {3}, config, DType::f32);
    for (std::size_t i = 0; i < expected.losses.size(); ++i) {
      CHECK(std::bit_cast<float>(outcome.losses[i]) ==
            doctest::Approx(std::bit_cast<float>(expected.losses[i])).epsilon(1e-5));
    }
    for (std::size_t i = 0; i < expected.parameters.size(); ++i) {
      CHECK(outcome.parameters[i] == doctest::Approx(expected.parameters[i]).epsilon(1e-3));
    }
  }
}

}  // namespace ashlar
