// The second step allocates nothing on compute threads: malloc and mmap are counted.
#include <doctest/doctest.h>

#include "allocation/count.hpp"
#include "ashlar/communicator.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/train_step.hpp"

namespace ashlar {
namespace {

void check(int ranks, int stage, DType dtype, std::int64_t micro_batches) {
  counted::maps = ranks == 1;
  launch_threads(ranks, [&](Communicator& world) {
    const GptConfig model = gpt_config("tiny");
    TrainConfig config;
    config.zero.stage = stage;
    config.precision = {dtype, dtype};
    config.micro_batches = micro_batches;
    config.clip = 1;
    config.samples = 2;
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
      counted::count = counted::bytes = 0;
      counted::ignored_below = dtype == DType::bf16 ? 4096 : 0;
      counted::on = step > 0;
      train.step(load);
      counted::on = false;
      CAPTURE(ranks);
      CAPTURE(stage);
      CAPTURE(step);
      CAPTURE(name_of(dtype));
      CAPTURE(counted::bytes);
      CHECK(counted::count == 0);
    }
  });
}

}  // namespace

TEST_CASE("allocation: the second step allocates nothing on compute threads") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check(1, 3, dtype, 1);
    check(2, 3, dtype, 1);
    check(3, 1, dtype, 2);
  }
}

}  // namespace ashlar
