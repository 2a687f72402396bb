// A tied parameter's uses are summed over the micro-batches apart, then in backward order.
#include <doctest/doctest.h>

#include "ashlar/communicator.hpp"
#include "ashlar/ops.hpp"
#include "ashlar/train_step.hpp"

namespace ashlar {
namespace {

/// sum(w x) in unit "first" + sum(w y) in unit "last": the gradients of the uses are x and y.
Value two_uses(Tracer& t) {
  const auto tied = [&] {
    const auto unit = t.unit("first");
    return t.parameter({"w", {1}, DType::f32, 0, true, false, {Initializer::Kind::constant, 0}});
  };
  const auto in_unit = [&](const char* name) {
    const auto unit = t.unit(name);
    return sum(multiply(tied(), t.input(name, DType::f32, {1})));
  };
  const Value first = in_unit("first");
  return add(first, in_unit("last"));
}

/// The parameter after one step of plain gradient descent from 0 at rate 1, over two micro-batches.
float descend(int stage, ReduceWhen reduce, float first0, float last0, float first1, float last1) {
  TrainConfig config;
  config.optimizer = Sgd{.momentum = 0, .weight_decay = 0};
  config.schedule.lr = 1;
  config.micro_batches = 2;
  config.reduce = reduce;
  config.zero.stage = stage;
  float parameter = 0;
  launch_threads(1, [&](Communicator& world) {
    TrainStep step(world, two_uses, config);
    step.step([&](std::int64_t micro_batch, const Batch& batch) {
      *batch.at("first").as<float>() = micro_batch == 0 ? first0 : first1;
      *batch.at("last").as<float>() = micro_batch == 0 ? last0 : last1;
    });
    step.read_parameter(0, {&parameter, DType::f32, {1}});
  });
  return parameter;
}

}  // namespace

TEST_CASE("tied uses: each is summed over the micro-batches for itself, the last use first") {
  // In fp32, 1e8 + 1 is 1e8: which sums are made first shows.
  for (const int stage : {0, 1, 2, 3}) {
    CAPTURE(stage);
    CHECK(descend(stage, ReduceWhen::last, 2, 2e8F, 2, -2e8F) == -2);
    CHECK(descend(stage, ReduceWhen::each, 2, 2e8F, 2, -2e8F) == 0);
    CHECK(descend(stage, ReduceWhen::last, 6, 10, 14, 20) == -25);
  }
}

}  // namespace ashlar
