// Steps in f16 are planned, not run: byte for byte as in bf16, whose elements are as large.
#include <doctest/doctest.h>

#include <random>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "ashlar/nn/language_model.hpp"
#include "ops/product/machine.hpp"
#include "report/footprint.hpp"

namespace ashlar {
namespace {

LanguageModel random_model(std::mt19937& random) {
  const auto layers = static_cast<std::int64_t>(1 + random() % 3);
  const auto heads = static_cast<std::int64_t>(1 + random() % 3);
  const bool tied = random() % 2 == 0;
  if (random() % 2 == 0)
    return GptConfig{"random", layers, heads, heads * 8, 1200, 61, 40, tied, 1e-5};
  return LlamaConfig{.name = "random",
                     .layers = layers,
                     .heads = heads,
                     .kv_heads = 1,
                     .head_size = 8,
                     .width = heads * 8,
                     .inner = 24,
                     .positions = 1200,
                     .vocabulary = 61,
                     .tied = tied};
}

TrainConfig random_config(std::mt19937& random) {
  TrainConfig config;
  config.zero = {static_cast<int>(random() % 4), 3000, static_cast<int>(random() % 3),
                 random() % 2 == 0, random() % 2 == 0};
  config.micro_batches = static_cast<std::int64_t>(1 + random() % 3);
  config.reduce = random() % 2 == 0 ? ReduceWhen::each : ReduceWhen::last;
  if (random() % 3 == 0) {
    config.order = MicroBatchOrder::layers;
    config.reduce = ReduceWhen::last;
  }
  constexpr Recompute kHow[] = {Recompute::none, Recompute::cheap, Recompute::selective,
                                Recompute::per_unit};
  config.recompute = kHow[random() % 4];
  config.samples = static_cast<std::int64_t>(1 + random() % 2);
  config.clip = static_cast<double>(random() % 2);
  return config;
}

CompiledStep compiled(const LanguageModel& model, TrainConfig config, DType dtype, DType wire,
                      int ranks, std::int64_t sequence, const Backend& backend) {
  config.precision = {dtype, wire};
  return compile_step(
      [&](Tracer& t) {
        return model.loss(t, {config.samples, sequence, dtype, 0, {}});
      },
      config, ranks, backend);
}

int count(const Graph& graph, DType dtype) {
  int values = 0;
  for (const ValueInfo& value : graph.values) values += value.type.dtype == dtype ? 1 : 0;
  return values;
}

}  // namespace

TEST_CASE("f16: a step's bytes are bf16's, whatever the model, stage, order and recomputation") {
  std::mt19937 random(16);
  for (int i = 0; i < 60; ++i) {
    const LanguageModel model = random_model(random);
    const TrainConfig config = random_config(random);
    const int ranks = static_cast<int>(1 + random() % 9);
    const bool narrow_wire = random() % 3 != 0;
    const std::int64_t sequence = i % 8 == 0 ? 1100 : static_cast<std::int64_t>(1 + random() % 40);
    const Backend backend{random() % 2 == 0 ? "zen5" : "avx512", static_cast<int>(1 + i % 3)};
    const CompiledStep half = compiled(
        model, config, DType::f16, narrow_wire ? DType::f16 : DType::f32, ranks, sequence, backend);
    const CompiledStep brain =
        compiled(model, config, DType::bf16, narrow_wire ? DType::bf16 : DType::f32, ranks,
                 sequence, backend);
    CAPTURE(i);
    CHECK(half.arena_bytes() == brain.arena_bytes());
    CHECK(half.programs[0].heights == brain.programs[0].heights);
    const Footprint a = footprint(half), b = footprint(brain);
    CHECK(a.model_state.sum() == b.model_state.sum());
    CHECK(a.peak.peak == b.peak.peak);
    CHECK(a.peak.at_peak == b.peak.at_peak);
    CHECK(a.peak.total == b.peak.total);
    CHECK(a.peak_op == b.peak_op);
    CHECK(a.transients == b.transients);
    CHECK(a.sent == b.sent);
    CHECK(count(half.programs[0].graph, DType::bf16) == 0);
    CHECK(count(half.programs[0].graph, DType::f16) == count(brain.programs[0].graph, DType::bf16));
  }
}

TEST_CASE("f16: a step of it is refused where it would run") {
  const LanguageModel model = GptConfig{"test", 1, 1, 8, 8, 11, 16, true, 1e-5};
  TrainConfig config;
  config.precision = {DType::f16, DType::f16};
  config.samples = 1;
  launch_threads(2, [&](Communicator& world) {
    CHECK_THROWS_WITH_AS(TrainStep(
                             world,
                             [&](Tracer& t) {
                               return model.loss(t, {1, 4, DType::f16, 0, {}});
                             },
                             config),
                         doctest::Contains("no kernels for f16"), InvalidArgument);
  });
}

}  // namespace ashlar
