// The second step allocates nothing on any thread of any rank: malloc and mmap are counted.
#include <doctest/doctest.h>

#include "allocation/count.hpp"
#include "ashlar/communicator.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/train_step.hpp"

namespace ashlar {
namespace {

void check(int ranks, int stage, DType dtype, std::int64_t micro_batches, int threads) {
  counted::maps = ranks == 1 && threads == 1;
  // oneDNN 2.6 hashes a bf16 product's arguments, and where threads split columns, so that rows
  // have gaps, it packs in memory of its own.
  counted::ignore_calls_of(dtype == DType::bf16 ? "libdnnl" : "");
  launch_threads(ranks, [&](Communicator& world) {
    const GptConfig model = gpt_config("tiny");
    TrainConfig config;
    config.zero.stage = stage;
    config.precision = {dtype, dtype};
    config.micro_batches = micro_batches;
    config.clip = 1;
    config.samples = 2;
    config.threads = threads;
    const ModelTrace how{2, 64, dtype, 0.1, {}};
    TrainStep train(
        world, [&](Tracer& t) { return gpt_loss(t, model, how); }, config);
    const Loader load = [](std::int64_t, const Batch& batch) {
      std::int32_t token = 0;
      for (const char* name : {"tokens", "targets"}) {
        for (std::int32_t& value : batch.at(name).span<std::int32_t>()) value = token++ % 256;
      }
    };
    for (int step = 0; step < 4; ++step) {
      world.barrier();
      const std::int64_t before = counted::total();
      counted::count = counted::bytes = 0;
      counted::on = counted::everywhere = step > 0;
      world.barrier();
      train.step(load);
      counted::on = false;
      world.barrier();
      counted::everywhere = false;
      CAPTURE(ranks);
      CAPTURE(stage);
      CAPTURE(step);
      CAPTURE(threads);
      CAPTURE(name_of(dtype));
      CAPTURE(counted::bytes);
      CHECK(counted::count == 0);
      CHECK(counted::total() == before);
    }
  });
}

}  // namespace

TEST_CASE("allocation: the second step allocates nothing") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int threads : {1, 2}) {
      check(1, 3, dtype, 1, threads);
      for (const int stage : {0, 1, 2, 3}) check(2, stage, dtype, 1, threads);
      check(3, 1, dtype, 2, threads);
    }
  }
}

}  // namespace ashlar
