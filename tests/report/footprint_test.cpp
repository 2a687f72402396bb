// The report of a step is what the step does: bytes by category and bytes sent, counted while real
// steps run at worlds 1 to 4.
#include "report/footprint.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <mutex>
#include <numeric>

#include "ashlar/communicator.hpp"
#include "ashlar/nn/language_model.hpp"
#include "ops/product/machine.hpp"

namespace ashlar {
namespace {

const LanguageModel& model_of(bool llama) {
  static const LanguageModel gpt = GptConfig{"test", 2, 2, 16, 12, 61, 40, true, 1e-5};
  static const LanguageModel other = LlamaConfig{.name = "test",
                                                 .layers = 2,
                                                 .heads = 2,
                                                 .kv_heads = 1,
                                                 .head_size = 8,
                                                 .width = 16,
                                                 .inner = 24,
                                                 .positions = 12,
                                                 .vocabulary = 61};
  return llama ? other : gpt;
}

LossModel loss_of(bool llama, DType dtype, std::int64_t batch) {
  return [=](Tracer& t) { return model_of(llama).loss(t, {batch, 12, dtype, 0, {}}); };
}

struct Counted {
  StepResult result;
  SentBytes sent{};  // by kind, the most of any rank
};

/// Two steps; the second's counts.
Counted count(const LossModel& loss, const TrainConfig& config, int ranks) {
  Counted counted;
  std::mutex mutex;
  launch_threads(ranks, [&](Communicator& world) {
    TrainStep train(world, loss, config);
    const auto load = [](std::int64_t, const Batch& batch) {
      for (const auto& [name, view] : batch) std::ranges::fill(view.span<std::int32_t>(), 7);
    };
    train.step(load);
    world.barrier();
    const SentBytes before = world.sent_bytes();
    const StepResult result = train.step(load);
    world.barrier();
    const SentBytes after = world.sent_bytes();
    const std::scoped_lock lock(mutex);
    counted.result = result;
    for (std::size_t k = 0; k + 1 < after.size(); ++k)
      counted.sent[k] = std::max(counted.sent[k], after[k] - before[k]);
  });
  return counted;
}

TrainConfig config_of(int stage, DType dtype, std::int64_t micro_batches, MicroBatchOrder order) {
  TrainConfig config;
  config.zero.stage = stage;
  config.zero.bucket_bytes = 3000;
  config.precision = {dtype, dtype};
  config.micro_batches = micro_batches;
  config.order = order;
  config.samples = 2;
  config.clip = 1;
  return config;
}

void check(bool llama, const TrainConfig& config, int ranks) {
  CAPTURE(llama);
  CAPTURE(ranks);
  CAPTURE(config.zero.stage);
  CAPTURE(config.micro_batches);
  const LossModel loss = loss_of(llama, config.precision.parameter, config.samples);
  const CompiledStep step = compile_step(loss, config, ranks, host_backend(1));
  const Footprint report = footprint(step);
  const Counted real = count(loss, config, ranks);
  CHECK(report.peak.total == real.result.memory.total);
  CHECK(report.peak.peak == real.result.memory.peak);
  CHECK(report.peak.at_peak == real.result.memory.at_peak);
  CHECK(report.peak.padding == real.result.memory.padding);
  CHECK(report.peak.fragmentation == real.result.memory.fragmentation);
  CHECK(report.sent == real.sent);
  std::int64_t held = 0;
  for (const PlannedBlock& block : report.at_peak) held += block.bytes;
  CHECK(held == std::accumulate(report.peak.at_peak.begin(), report.peak.at_peak.end(), 0L));
}

}  // namespace

TEST_CASE("footprint: what steps count, every stage, precision and order, worlds 1 to 4") {
  for (const int ranks : {1, 2, 3, 4})
    for (const int stage : {0, 1, 2, 3})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        check(false, config_of(stage, dtype, 1, MicroBatchOrder::micro_batches), ranks);
        check(stage % 2 == 0, config_of(stage, dtype, 3, MicroBatchOrder::micro_batches), ranks);
        check(true, config_of(stage, dtype, 2, MicroBatchOrder::layers), ranks);
      }
}

TEST_CASE("footprint: the closed form is a lower bound, and exact up to padding") {
  for (const int ranks : {1, 3, 64, 1000})
    for (const int stage : {0, 1, 2, 3})
      for (const DType dtype : {DType::f32, DType::bf16})
        for (const std::int64_t k : {1, 4}) {
          const TrainConfig config = config_of(stage, dtype, k, MicroBatchOrder::micro_batches);
          const CompiledStep step =
              compile_step(loss_of(false, dtype, 2), config, ranks, host_backend(1));
          const Footprint report = footprint(step);
          ZeroCase zero;
          zero.trainable = step.layout.elements(true);
          zero.ranks = ranks;
          zero.stage = stage;
          zero.bf16 = dtype == DType::bf16;
          zero.accumulate = k;
          zero.reduce_each = stage >= 2;
          const ModelStateBytes least = state_formula(zero);
          CAPTURE(ranks);
          CAPTURE(stage);
          CAPTURE(k);
          CHECK(least.parameter <= report.model_state.parameter);
          CHECK(least.gradient <= report.model_state.gradient);
          CHECK(least.optimizer_state <= report.model_state.optimizer_state);
          CHECK(least.sum() <= report.peak.total);
          zero.trainable = step.layout.padded(true);
          const ModelStateBytes padded = state_formula(zero);
          CHECK(padded.parameter == report.model_state.parameter);
          CHECK(padded.gradient == report.model_state.gradient);
          CHECK(padded.optimizer_state == report.model_state.optimizer_state);
        }
}

TEST_CASE("footprint: transients have names, the peak an owner") {
  TrainConfig config = config_of(3, DType::f32, 1, MicroBatchOrder::micro_batches);
  const Footprint report =
      footprint(compile_step(loss_of(false, DType::f32, 2), config, 2, host_backend(1)));
  for (const char* name : {"gather buffers", "gradient buckets", "logits"})
    CHECK(report.transients.at(name) > 0);
  CHECK(report.transients.at("gather buffers") ==
        report.peak.peak[static_cast<std::size_t>(Category::gathered_parameter)]);
  CHECK(!report.peak_op.empty());
}

}  // namespace ashlar
