// The collectives that the simulator reads from a Program are those that a run calls: operation,
// bytes and group, in order.
#include "simulate/ledger.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>

#include "ops/product/machine.hpp"
#include "sharding/compile_step.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar::simulate {
namespace {

std::int64_t sum(const SentBytes& sent) {
  std::int64_t bytes = 0;
  for (const std::int64_t part : sent) bytes += part;
  return bytes;
}

}  // namespace

TEST_CASE("ledger: a run calls what the simulator reads, at worlds 1 to 8, every stage and order") {
  Cluster cluster = ashlar::simulate::cluster("cpu");
  cluster.devices_per_node = 8;
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (int stage = 0; stage <= 3; ++stage) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        TrainConfig config;
        config.zero.stage = stage;
        config.zero.prefetch = ranks % 3;
        config.zero.bucket_bytes = ranks % 2 == 0 ? 3000 : 1 << 20;
        config.zero.reshard_after_forward = ranks % 4 != 0;
        config.precision = {dtype, dtype};
        config.micro_batches = 1 + (ranks + stage) % 3;
        if (ranks % 5 == 0) config.order = MicroBatchOrder::layers;
        if (ranks % 2 == 0) config.recompute = Recompute::per_unit;
        config.clip = stage % 2;
        if (ranks % 2 == 0) config.zero.group = stage % 2 == 0 ? 0 : ranks / 2;
        ModelTrace how{1, kTinySequence, dtype, 0, {}};
        const LossModel loss = tiny_gpt_loss(tiny_gpt(), how);
        const CompiledStep step = compile_step(loss, config, ranks, host_backend(1));
        const Workload work = price(step.programs[0], config.micro_batches, ranks, cluster);
        CAPTURE(fmt::format("{} ranks, group {}, stage {}, {}", ranks, config.zero.group, stage,
                            name_of(dtype)));
        std::atomic<std::int64_t> sent = 0;
        launch_threads(ranks, [&](Communicator& world) {
          Ledger ledger(world);
          TrainStep train(ledger, loss, config);
          ledger.lines.clear();
          const std::int64_t before = sum(train.sent_bytes());
          train.step([&](std::int64_t k, const Batch& batch) { load_tokens(batch, 1, k); });
          sent += sum(train.sent_bytes()) - before;
          if (world.rank() == 0) CHECK(ledger.lines == lines_of(work));
        });
        CHECK(sent == work.sent_bytes);
      }
    }
  }
}

TEST_CASE("workload: the model's operations are the textbook's, recomputed or not") {
  const GptConfig model = tiny_gpt();
  const ModelTrace how{1, kTinySequence, DType::f32, 0, {}};
  const double c = static_cast<double>(model.width), tokens = 3 * kTinySequence;
  const double inner = static_cast<double>(model.inner);
  const double block = 2 * (4 * c * c + 2 * c * inner), attention = 2 * c * (kTinySequence + 1);
  const double head = 2 * c * static_cast<double>(model.vocabulary);
  double before = 0;
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::per_unit}) {
    TrainConfig config;
    config.micro_batches = 3;
    config.recompute = recompute;
    const CompiledStep step = compile_step(tiny_gpt_loss(model, how), config, 1, host_backend(1));
    const Workload work = price(step.programs[0], 3, 1, cluster("cpu"));
    CHECK(work.model_flops == doctest::Approx(3 * tokens * (2 * (block + attention) + head)));
    CHECK(work.flops > before);
    before = work.flops;
  }
}

}  // namespace ashlar::simulate
