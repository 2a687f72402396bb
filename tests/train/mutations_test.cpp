// Mutations of a real sharded step that must not go unnoticed: a gather that is deleted, a lifetime
// that is one instruction short or ends before a wait, sums that go to the wrong rank or are summed
// in another order. (Events that are dropped: races_test.cpp.)
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "ashlar/communicator.hpp"
#include "ashlar/error.hpp"
#include "graph/early_end.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/decorators.hpp"
#include "train/tiny_gpt.hpp"
#include "train/values_of.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kSteps = 2;

/// What a run showed: the bits of losses and norms, of the parameters at the end, or an exception.
struct Outcome {
  std::vector<std::uint64_t> bits;
  std::string error;
  bool operator==(const Outcome&) const = default;
};

using Mutation = std::function<void(Program&)>;
using Body = std::function<void(Communicator&)>;
using Decorate = std::function<void(Communicator& world, const Body& body)>;

TrainConfig config_of(int stage, DType dtype) {
  TrainConfig config;
  config.zero = {stage, 5000, 1};
  config.precision = {dtype, dtype};
  config.schedule.lr = 0.01;
  config.clip = 0.5;
  config.micro_batches = 2;
  config.reduce = ReduceWhen::each;
  config.poison = true;
  return config;
}

void train_rank(Communicator& world, const TrainConfig& config, DType dtype, const Mutation& mutate,
                std::vector<std::uint64_t>& bits) {
  TrainStep step(world, tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, dtype, 0, {}}), config, {},
                 {mutate, {}});
  for (std::int64_t i = 0; i < kSteps; ++i) {
    const StepResult result = step.step([&](std::int64_t k, const Batch& batch) {
      load_tokens(batch, i * config.micro_batches + k, world.rank());
    });
    bits.push_back(std::bit_cast<std::uint32_t>(result.loss));
    bits.push_back(std::bit_cast<std::uint64_t>(result.grad_norm));
  }
  for (const float v : values_of(step)) bits.push_back(std::bit_cast<std::uint32_t>(v));
}

Outcome train(int ranks, int stage, DType dtype, const Mutation& mutate,
              const Decorate& decorate = {}) {
  Outcome outcome;
  try {
    launch_threads(ranks, [&](Communicator& threads) {
      std::vector<std::uint64_t> bits;
      const auto body = [&](Communicator& world) {
        train_rank(world, config_of(stage, dtype), dtype, mutate, bits);
      };
      decorate ? decorate(threads, body) : body(threads);
      if (threads.rank() == 0) outcome.bits = bits;
    });
  } catch (const Error& error) {
    outcome.error = error.what();
  }
  return outcome;
}

std::size_t index(int i) { return static_cast<std::size_t>(i); }

Program program_of(int ranks, int stage, DType dtype) {
  Program program;
  launch_threads(ranks, [&](Communicator& world) {
    std::vector<std::uint64_t> bits;
    train_rank(
        world, config_of(stage, dtype), dtype,
        [&](Program& p) {
          if (world.rank() == 0) program = p;
        },
        bits);
  });
  return program;
}

/// True when the last instruction of a buffer's life reads it with a kernel.
bool read_last(const Program& program, std::size_t b) {
  const StorageBuffer& buffer = program.placed[b].first;
  if (buffer.category == Category::workspace || buffer.last - buffer.first < 2 ||
      buffer.last > static_cast<int>(program.steps.size()))
    return false;
  const Step& last = program.steps[index(buffer.last - 1)];
  const Node& node = program.graph.nodes[index(last.node)];
  if (last.kind != Instruction::Kind::run || node.op->run == nullptr) return false;
  return std::ranges::any_of(node.inputs, [&](ValueId id) { return lies_in(program, id, b); });
}

std::vector<int> rotated(int ranks) {
  std::vector<int> order(index(ranks));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[0], order[1]);
  return order;
}

/// Rank 0 gets rank 1's sums, and the other way round.
void swap_sums(Communicator& world, const Body& body) {
  PermutedSums swapped(world, world, rotated(world.size()));
  body(swapped);
}

/// Every rank gets its own sums, added from the last rank to the first.
void sum_backwards(Communicator& world, const Body& body) {
  const auto reversed = world.split(0, world.size() - 1 - world.rank());
  std::vector<int> order(index(world.size()));
  std::iota(order.rbegin(), order.rend(), 0);
  PermutedSums backwards(world, *reversed, order);
  body(backwards);
}

/// Copies alone change nothing.
void sum_copies(Communicator& world, const Body& body) {
  std::vector<int> order(index(world.size()));
  std::iota(order.begin(), order.end(), 0);
  PermutedSums same(world, world, order);
  body(same);
}

}  // namespace

TEST_CASE("mutation: each gather of a sharded GPT step, deleted, is seen") {
  for (const auto& [ranks, stage, dtype] :
       {std::tuple{3, 3, DType::f32}, {2, 3, DType::bf16}, {3, 2, DType::f32}}) {
    const Outcome expected = train(ranks, stage, dtype, {});
    REQUIRE(expected.error.empty());
    const Program program = program_of(ranks, stage, dtype);
    int gathers = 0;
    for (int n = 0; n < static_cast<int>(program.graph.nodes.size()); ++n) {
      if (!program.graph.nodes[index(n)].op->name.starts_with("gather")) continue;
      ++gathers;
      CAPTURE(stage);
      CAPTURE(n);
      CAPTURE(program.graph.nodes[index(n)].unit);
      CHECK_FALSE(train(ranks, stage, dtype, [n](Program& mutant) {
                    for (Step& step : mutant.steps) {
                      if (step.node == n) step.kind = Instruction::Kind::run;  // runs nothing
                    }
                  }) == expected);
    }
    CHECK(gathers >= (stage == 3 ? 8 : 4));
  }
}

TEST_CASE("mutation: each lifetime of a sharded GPT step, one instruction short, is seen") {
  for (const auto& [ranks, dtype] : {std::pair{2, DType::f32}, std::pair{3, DType::bf16}}) {
    const Outcome expected = train(ranks, 3, dtype, {});
    const Program program = program_of(ranks, 3, dtype);
    int tried = 0;
    for (std::size_t b = 0; b < program.placed.size(); ++b) {
      if (!read_last(program, b)) continue;
      ++tried;
      const Step& last = program.steps[index(program.placed[b].first.last - 1)];
      CAPTURE(b);
      CAPTURE(program.graph.nodes[index(last.node)].op->name);
      CHECK_FALSE(train(ranks, 3, dtype, [b](Program& mutant) { --mutant.placed[b].first.last; }) ==
                  expected);
    }
    CHECK(tried > 40);
  }
}

TEST_CASE("mutation: each lifetime of a sharded GPT step that ends before its wait is a race") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    ShardOptions options;
    options.precision = {dtype, dtype};
    options.micro_batches = 2;
    options.zero.bucket_bytes = 1;
    const Graph joint =
        trace_training(tiny_gpt_loss(tiny_gpt(4), {1, kTinySequence, dtype, 0, {}}), options);
    for (const auto& [ranks, stage] : {std::pair{3, 1}, {2, 2}, {2, 3}, {3, 3}}) {
      options.zero.stage = stage;
      const FlatLayout layout(joint.parameters, joint.units, ranks);
      StateLayout states;
      const Program program = compile(shard_step(joint, layout, options, {}), {}, {}, states);
      EarlyEnds ends(program);
      CAPTURE(ranks);
      CAPTURE(stage);
      CHECK(ends.ending_in_flight() == 0);
      ends.try_all(ranks);
      CHECK(ends.unseen == "");
      CHECK(ends.tried >= 5);
    }
  }
}

TEST_CASE("mutation: sums that go to another rank, or are added in another order, are seen") {
  for (const int ranks : {2, 3, 4}) {
    for (const int stage : {0, 1, 2, 3}) {
      CAPTURE(ranks);
      CAPTURE(stage);
      const Outcome expected = train(ranks, stage, DType::f32, {});
      CHECK(train(ranks, stage, DType::f32, {}, sum_copies) == expected);
      CHECK_FALSE(train(ranks, stage, DType::f32, {}, swap_sums) == expected);
      const Outcome backwards = train(ranks, stage, DType::f32, {}, sum_backwards);
      CHECK(backwards.error.empty());
      CHECK((backwards == expected) == (ranks == 2));  // two terms commute
    }
  }
}

}  // namespace ashlar
