// The planner's formulas against the Programs that they stand for.
#include "report/planner.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <random>

#include "ops/product/machine.hpp"
#include "sharding/compile_step.hpp"

namespace ashlar {
namespace {

using planner::Candidate;
using planner::Problem;

LanguageModel random_model(std::mt19937& random) {
  const auto layers = static_cast<std::int64_t>(1 + random() % 12);
  const auto heads = static_cast<std::int64_t>(1 + random() % 3);
  const std::int64_t width = heads * 16;
  const bool tied = random() % 2 == 0;
  if (random() % 2 == 0)
    return GptConfig{"random", layers, heads, width, 64, 211, 4 * width, tied, 1e-5};
  return LlamaConfig{.name = "random",
                     .layers = layers,
                     .heads = heads,
                     .kv_heads = 1,
                     .head_size = 16,
                     .width = width,
                     .inner = 3 * width,
                     .positions = 64,
                     .vocabulary = 211,
                     .tied = tied};
}

TrainConfig config_of(const Problem& problem, const Candidate& c) {
  TrainConfig config;
  config.zero.stage = c.stage;
  config.zero.reshard_after_forward = c.reshard;
  const DType dtype = problem.bf16 ? DType::bf16 : DType::f32;
  config.precision = {dtype, dtype};
  config.micro_batches = c.accumulate;
  config.order = c.order;
  config.reduce = c.reduce_each ? ReduceWhen::each : ReduceWhen::last;
  config.recompute = c.recompute;
  config.zero.group = c.group;
  config.samples = c.batch;
  return config;
}

}  // namespace

TEST_CASE("planner: the closed form is a lower bound on the Program") {
  std::mt19937 random(7);
  int checked = 0;
  for (int i = 0; i < 60; ++i) {
    const LanguageModel model = random_model(random);
    Problem problem;
    problem.model = planner::shape_of(model);
    problem.ranks = static_cast<int>(1 + random() % 40);
    problem.sequence = static_cast<std::int64_t>(1 + random() % 64);
    problem.global_batch = problem.ranks * static_cast<std::int64_t>(1 + random() % 6);
    problem.bf16 = random() % 2 == 0;
    problem.node = i % 2 == 0 ? 4 : 0;
    const auto all = planner::candidates(problem);
    for (int n = 0; n < 6; ++n, ++checked) {
      const Candidate c = all[random() % all.size()];
      const CompiledStep step = compile_step(
          [&](Tracer& t) {
            return model.loss(
                t, {c.batch, problem.sequence, problem.bf16 ? DType::bf16 : DType::f32, 0, {}});
          },
          config_of(problem, c), problem.ranks, host_backend(1));
      CAPTURE(c.stage);
      CAPTURE(c.batch);
      CAPTURE(c.accumulate);
      CAPTURE(static_cast<int>(c.order));
      CAPTURE(static_cast<int>(c.recompute));
      CAPTURE(c.reshard);
      CAPTURE(c.group);
      CAPTURE(problem.ranks);
      CAPTURE(problem.sequence);
      CHECK(planner::least_bytes(problem, c) <= step.planned().total);
    }
  }
  CHECK(checked == 360);
}

TEST_CASE("planner: the bound is near where activations are most of it") {
  const LanguageModel model = language_model("gpt3-1.3b");
  Problem problem;
  problem.model = planner::shape_of(model);
  problem.ranks = 64;
  problem.sequence = 2048;
  for (const Recompute recompute :
       {Recompute::none, Recompute::cheap, Recompute::selective, Recompute::per_unit}) {
    const Candidate c{.stage = 3, .batch = 16, .recompute = recompute};
    const CompiledStep step = compile_step(
        [&](Tracer& t) {
          return model.loss(t, {c.batch, 2048, DType::bf16, 0, {}});
        },
        config_of(problem, c), problem.ranks, host_backend(1));
    const double share = static_cast<double>(planner::least_bytes(problem, c)) /
                         static_cast<double>(step.planned().total);
    CAPTURE(static_cast<int>(recompute));
    CHECK(share <= 1);
    CHECK(share >= (recompute == Recompute::per_unit ? 0.3 : 0.6));
  }
}

TEST_CASE("planner: candidates are what a step takes, each once, and multiply to the batch") {
  Problem problem;
  problem.model = planner::shape_of(language_model("tiny"));
  problem.ranks = 4;
  problem.global_batch = 48;
  const auto all = planner::candidates(problem);
  for (const Candidate& c : all) {
    CHECK(c.batch * c.accumulate * problem.ranks == problem.global_batch);
    CHECK(!(c.order == MicroBatchOrder::layers && c.reduce_each));
  }
  CHECK(all.size() == 5 * (4 * 3 * 3 + 4 * 3 * 2) + 4 * 5);
  std::size_t sharded = 0;
  for (const Candidate& c : all) sharded += c.stage > 0 ? 1 : 0;
  for (const int node : {3, 4, 8}) {  // not full, all of them, more than there are
    problem.node = node;
    CHECK(planner::candidates(problem).size() == all.size());
  }
  problem.node = 2;
  const auto grouped = planner::candidates(problem);
  CHECK(grouped.size() == all.size() + sharded);
  for (const Candidate& c : grouped) CHECK((c.group == 0 || (c.group == 2 && c.stage > 0)));
}

TEST_CASE("planner: more ranks, less state; recomputation, less memory and more time") {
  Problem problem;
  problem.model = planner::shape_of(language_model("gpt3-6.7b"));
  problem.ranks = 64;
  problem.sequence = 2048;
  problem.global_batch = 512;
  const simulate::Cluster cluster = simulate::cluster("dgx-a100");
  const planner::StepTime seconds(problem, cluster);
  Candidate c{.stage = 3, .batch = 4, .accumulate = 2};
  Candidate remade = c;
  remade.recompute = Recompute::per_unit;
  CHECK(planner::least_bytes(problem, remade) < planner::least_bytes(problem, c));
  CHECK(seconds(remade) > seconds(c));
  Problem more = problem;
  more.ranks = 128;
  CHECK(planner::least_bytes(more, c) < planner::least_bytes(problem, c));
}

TEST_CASE("planner: groups of a node hold more and gather sooner") {
  Problem problem;
  problem.model = planner::shape_of(language_model("gpt3-6.7b"));
  problem.ranks = 256;
  problem.sequence = 2048;
  problem.global_batch = 1024;
  problem.node = 8;
  simulate::Cluster cluster = simulate::cluster("dgx-a100");
  cluster.network.rate /= 100;
  const planner::StepTime seconds(problem, cluster);
  const Candidate all{.stage = 3, .accumulate = 4};  // gathered four times, summed over nodes once
  Candidate group = all;
  group.group = 8;
  CHECK(planner::least_bytes(problem, group) > planner::least_bytes(problem, all));
  CHECK(seconds(group) < seconds(all));
}

TEST_CASE("planner: goodput by Young's formula") {
  CHECK(planner::goodput(3600, 0) == 1);
  CHECK(planner::goodput(20'000, 100) == doctest::Approx(0.9));  // every 2000 s
  CHECK(planner::goodput(10, 1000) == 0);
}

}  // namespace ashlar
