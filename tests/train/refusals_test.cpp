// What a step says that cannot be made, and why every row of one that can is not differentiated.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "sharding/train_step_parts.hpp"
#include "support/temporary_folder.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {
namespace {

TrainConfig config_of(int stage, Recompute recompute, std::int64_t budget = 0) {
  TrainConfig config;
  config.zero.stage = stage;
  config.recompute = recompute;
  config.memory_budget = budget;
  return config;
}

/// @return bytes of the whole step
std::int64_t make(const TrainConfig& config) {
  std::int64_t bytes = 0;
  launch_threads(1, [&](Communicator& world) {
    const LossModel model = tiny_gpt_loss(tiny_gpt(), {4, kTinySequence, DType::f32, 0, {}});
    bytes = TrainStep(world, model, config).planned().total;
  });
  return bytes;
}

template <typename Exception>
std::string refusal(const TrainConfig& config) {
  return message_of<Exception>([&] { make(config); });
}

std::string out_of_memory(int stage, Recompute recompute) {
  LimitAdaptor little(host_memory(), 1000);
  TrainConfig config = config_of(stage, recompute);
  config.memory = &little;
  const std::string said = refusal<OutOfMemory>(config);
  return said.substr(std::min(said.rfind(';'), said.size()));
}

}  // namespace

TEST_CASE("refusals: out of memory advises what is not on already") {
  const std::string recomputation = "more recomputation (or a memory budget)";
  for (int stage = 0; stage <= 3; ++stage) {
    for (const Recompute how :
         {Recompute::automatic, Recompute::none, Recompute::selective, Recompute::per_unit}) {
      CAPTURE(stage);
      CAPTURE(static_cast<int>(how));
      const std::string said = out_of_memory(stage, how);
      CAPTURE(said);
      CHECK(contains(said, "a higher stage") == (stage < 3));
      CHECK(contains(said, "more ranks") == (stage > 0));
      CHECK(contains(said, recomputation) == (how != Recompute::per_unit));
      CHECK(said.ends_with("or smaller batches"));
    }
    if (stage % 3 != 0) continue;
    const std::string said = refusal<InvalidArgument>(config_of(stage, Recompute::budget, 1000));
    CAPTURE(said);
    CHECK(contains(said, "cannot be met"));
    CHECK(contains(said, "a higher stage") == (stage < 3));
    CHECK(!contains(said, "recomputation (or"));
  }
}

TEST_CASE("refusals: a memory budget is kept to, or refused with the mode that would not") {
  const std::int64_t all = make(config_of(3, Recompute::none));
  const std::int64_t kept = make(config_of(3, Recompute::automatic, all - 1));
  CHECK(kept < all);
  CHECK(kept == make(config_of(3, Recompute::budget, all - 1)));
  for (const Recompute how :
       {Recompute::none, Recompute::cheap, Recompute::selective, Recompute::per_unit})
    CHECK(contains(refusal<InvalidArgument>(config_of(3, how, all)),
                   "only Recompute::budget (or automatic) keeps to one"));
  CHECK(contains(refusal<InvalidArgument>(config_of(3, Recompute::budget)), "more than 0"));
  CHECK(contains(refusal<InvalidArgument>(config_of(3, Recompute::automatic, -1)), "more than 0"));
}

TEST_CASE("refusals: a GPU where none works, on every rank") {
  if (device_count(DeviceType::cuda) > 0) return;
  const LossModel model = tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, DType::f32, 0, {}});
  TrainConfig config = config_of(0, Recompute::automatic);
  config.device = {DeviceType::cuda, 0};
  launch_threads(
      2, [&](Communicator& world) { CHECK_THROWS_AS(TrainStep(world, model, config), CudaError); });
}

TEST_CASE("refusals: every row of a step is differentiated in both modes, or says why not") {
  std::set<std::string_view> seen;
  const auto look = [&](const Program& program) {
    for (const Node& node : program.graph.nodes) {
      const OpDef& op = *node.op;
      seen.insert(op.name);
      const bool both =
          op.stops_derivatives || op.expand != nullptr || (op.vjp != nullptr && op.jvp != nullptr);
      CHECK_MESSAGE(both != !op.not_differentiable.empty(), op.name);
    }
  };
  for (int stage = 0; stage <= 3; ++stage) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const auto order : {MicroBatchOrder::micro_batches, MicroBatchOrder::layers}) {
        TrainConfig config = config_of(stage, Recompute::automatic);
        config.precision = {dtype, dtype};
        config.micro_batches = 2;
        config.order = order;
        config.zero.group = dtype == DType::bf16 ? 1 : 0;
        config.clip = 1;
        const LossModel model = tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, dtype, 0.1, {}});
        launch_threads(2, [&](Communicator& world) {
          TrainStep(world, model, config, {},
                    {[&](Program& program) {
                       if (world.rank() == 0) look(program);
                     },
                     {}});
        });
      }
    }
  }
  for (const std::string_view name :
       {"slice_flat", "own_shard", "pack", "gather", "gather_into", "reduce_scatter", "all_reduce",
        "accumulate", "gradient_norm", "update", "reduce_scatter_sums", "all_reduce_replicas",
        "round_sums"})
    CHECK_MESSAGE(seen.contains(name), name);
}

}  // namespace ashlar
