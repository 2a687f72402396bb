// A small GPT trained on a device without hardware: kernels on the emulator, products and
// collectives of the CPU in the order of streams, which run as late as events allow or ahead as the
// test chooses.
#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "ashlar/error.hpp"
#include "emulated/train_run.hpp"
#include "emulated/update_apart.hpp"
#include "runtime/stream_state.hpp"
#include "support/late_communicator.hpp"

namespace ashlar {
namespace {

using namespace test;  // NOLINT: what its own header declares

using FindKernel = const DeviceKernel* (*)(std::string_view op);

Outcome train(const Run& run, FindKernel find_kernel = cuda::find_kernel) {
  Outcome outcome;
  launch_threads(run.ranks, [&](Communicator& threads) {
    LateDevice device(run.ahead, run.seed + static_cast<unsigned>(threads.rank()));
    DeviceSide side = emulated(device.stream());
    side.backend.find_kernel = find_kernel;
    LateCommunicator world(threads, device);
    world.lost_sum = run.lost_sum;
    world.lost_join = run.lost_join;
    Outcome mine = train_rank(world, run, &side, device.memory());
    mine.sums = world.sums;
    mine.joins = world.joins;
    if (threads.rank() == 0) outcome = mine;
  });
  return outcome;
}

/// Counts what is enqueued, and runs none of it.
struct CountingStream final : detail::StreamState {
  CountingStream() : StreamState({}) {}
  void enqueue(std::function<void()>) override { ++enqueued; }
  void wait(const std::shared_ptr<detail::EventState>&) override {}
  std::shared_ptr<detail::EventState> record() override { return nullptr; }
  void synchronize() override {}
  int enqueued = 0;
};

Graph sharded(const LossModel& model, const Run& run, const Backend& backend) {
  const ShardOptions options = shard_options(config_of(run), run.ranks);
  const Graph joint = trace_training(model, options);
  return shard_step(joint, FlatLayout(joint.parameters, joint.units, run.ranks), options, backend);
}

std::vector<const Node*> updates_of(const Graph& graph) {
  std::vector<const Node*> updates;
  for (const Node& node : graph.nodes)
    if (node.op->name == "update") updates.push_back(&node);
  return updates;
}

Outcome train_on_cpu(const Run& run) {
  Outcome outcome;
  launch_threads(run.ranks, [&](Communicator& world) {
    const Outcome mine = train_rank(world, run, nullptr);
    if (world.rank() == 0) outcome = mine;
  });
  return outcome;
}

}  // namespace

TEST_CASE("device: a GPT's losses have the same bits at all stages, and are the CPU's to 1e-5") {
  for (const int ranks : {1, 2}) {
    const Outcome expected = train({.ranks = ranks});
    check_close(expected, train_on_cpu({.ranks = ranks}), 1e-5);
    CHECK(expected.losses.back() < expected.losses.front());
    for (const int stage : {1, 2, 3}) {
      CAPTURE(ranks);
      CAPTURE(stage);
      CHECK(train({.ranks = ranks, .stage = stage}).bits == expected.bits);
    }
  }
}

TEST_CASE("device: updating all flats in one launch gives the bits of one for each") {
  const FindKernel apart = [](std::string_view op) {
    static constexpr DeviceKernel kApart{
        "update", [](const KernelArguments& k) { update_apart(k, cuda::update); }};
    return op == kApart.op ? &kApart : cuda::find_kernel(op);
  };
  const Run adamw{.dtype = DType::bf16, .optimizer = AdamW{.weight_decay = 0.1, .ema = 0.9}};
  const Run sgd{.optimizer = Sgd{.momentum = 0.9, .weight_decay = 0.1}};
  for (Run run : {adamw, sgd})
    for (run.stage = 0; run.stage <= 3; ++run.stage)
      for (run.ranks = 1; run.ranks <= 2; ++run.ranks) {
        CAPTURE(run.stage);
        CAPTURE(run.ranks);
        run.steps = 2;
        run.layers = 1;
        CHECK(train(run).bits == train(run, apart).bits);
      }
}

TEST_CASE("device: a step has one update, but for gathers that go on beside the next flat's") {
  const auto updates = [](int stage, int ranks, const Backend& backend) {
    const Run run{.ranks = ranks, .stage = stage};
    return updates_of(sharded(model_of(run), run, backend)).size();
  };
  const Backend host = host_backend(1), device = emulated({}).backend;
  const std::size_t flats = updates(0, 1, host);
  CHECK(flats > 3);
  for (const int ranks : {1, 2, 3})
    for (const int stage : {0, 1, 2, 3}) {
      CAPTURE(stage);
      CAPTURE(ranks);
      CHECK(updates(stage, ranks, host) == flats);
      CHECK(updates(stage, ranks, device) == (stage % 3 > 0 && ranks > 1 ? flats : 1));
    }
}

TEST_CASE("device: a GPT-2 is updated in one launch, of 1.5B parameters in two") {
  for (const auto& [name, launches] : {std::pair{"gpt2", 1}, {"gpt2-xl", 2}}) {
    CAPTURE(name);
    const Graph graph =
        sharded(tiny_gpt_loss(gpt_config(name), {1, kTinySequence, DType::bf16, 0, {}}),
                {.dtype = DType::bf16}, emulated({}).backend);
    const auto updates = updates_of(graph);
    REQUIRE(updates.size() == 1);
    const auto views = [&](const std::vector<ValueId>& ids) {
      static std::byte nowhere;
      std::vector<TensorView> all;
      for (const ValueId id : ids) {
        const TensorType& type = graph[id].type;
        all.emplace_back(&nowhere, type.dtype, type.shape);
      }
      return all;
    };
    CountingStream stream;
    RunContext context;
    context.stream = StreamRef(&stream);
    cuda::update(
        {context, updates[0]->attributes, views(updates[0]->inputs), views(updates[0]->outputs)});
    CHECK(stream.enqueued == launches);
  }
}

TEST_CASE("device: nor do they depend on which of its streams run ahead") {
  for (const int stage : {0, 3}) {
    const Run run{.ranks = 2, .stage = stage, .steps = 2, .layers = 1};
    const Outcome expected = train(run);
    for (const Ahead ahead : {Ahead::first, Ahead::others, Ahead::random}) {
      CAPTURE(stage);
      CAPTURE(static_cast<int>(ahead));
      Run other = run;
      other.ahead = ahead;
      CHECK(train(other).bits == expected.bits);
    }
  }
}

TEST_CASE("device: a GPT in bf16 has the same bits at all stages, and the CPU's losses roughly") {
  const Outcome expected = train({.ranks = 2, .dtype = DType::bf16});
  check_close(expected, train_on_cpu({.ranks = 2, .dtype = DType::bf16}), 1e-2);
  for (const int stage : {1, 2, 3})
    CHECK(train({.ranks = 2, .stage = stage, .dtype = DType::bf16}).bits == expected.bits);
}

TEST_CASE("device: over a communicator of the host, on a stream that is a thread") {
  for (const int stage : {0, 3}) {
    const Run run{.ranks = 2, .stage = stage, .steps = 2, .layers = 1};
    Outcome outcome;
    launch_threads(run.ranks, [&](Communicator& world) {
      const Stream stream;
      const DeviceSide side = emulated(stream);
      const Outcome mine = train_rank(world, run, &side);
      if (world.rank() == 0) outcome = mine;
    });
    CHECK(outcome.bits == train(run).bits);
  }
}

// Sums that start too early find gradients that are not there, where collectives run ahead; kernels
// that run ahead find neither parameters nor sums. Gathers read what the step before has left.
TEST_CASE("device: each order between streams that a step loses is seen") {
  const Run run{.ranks = 2, .stage = 3, .steps = 1, .layers = 1};
  const Outcome expected = train(run);
  REQUIRE(expected.sums >= 6);
  REQUIRE(expected.joins >= 15);
  Run mutant = run;
  mutant.ahead = Ahead::others;
  for (mutant.lost_sum = 0; mutant.lost_sum < expected.sums; ++mutant.lost_sum) {
    CAPTURE(mutant.lost_sum);
    CHECK(train(mutant).bits != expected.bits);
  }
  mutant = run;
  mutant.ahead = Ahead::first;
  for (mutant.lost_join = 0; mutant.lost_join < expected.joins; ++mutant.lost_join) {
    CAPTURE(mutant.lost_join);
    CHECK(train(mutant).bits != expected.bits);
  }
}

TEST_CASE("device: a rank that fails ends the others, with work still on its streams") {
  for (const Ahead ahead : {Ahead::nothing, Ahead::first, Ahead::others}) {
    std::string error;
    try {
      launch_threads(2, [&](Communicator& threads) {
        LateDevice device(ahead);
        const DeviceSide side = emulated(device.stream());
        LateCommunicator world(threads, device);
        const Run run{.ranks = 2, .stage = 3};
        TrainConfig config = config_of(run);
        config.memory = &device.memory();
        TrainStep step(world, model_of(run), config, {}, {{}, {}, &side});
        step.step([&](std::int64_t k, const Batch& batch) {
          if (k == 1 && world.rank() == 0) throw InvalidArgument("no more tokens");
          load_tokens(batch, k, world.rank());
        });
      });
    } catch (const Error& failure) {
      error = failure.what();
    }
    CHECK(error.find("no more tokens") != std::string::npos);
  }
}

TEST_CASE("device: a step is refused where a GPU has no kernel for one of its ops") {
  launch_threads(1, [&](Communicator& world) {
    DeviceSide side = emulated({});
    side.backend.device = DeviceType::cuda;
    CHECK_THROWS_WITH_AS(TrainStep(world, model_of({}), config_of({}), {}, {{}, {}, &side}),
                         doctest::Contains("there is no kernel for it on CUDA"), InvalidArgument);
  });
}

}  // namespace ashlar
