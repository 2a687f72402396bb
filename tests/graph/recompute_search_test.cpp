// The search for what to recompute, against every subset of small graphs and on a GPT.
#include "graph/recompute_search.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "ashlar/nn/gpt.hpp"
#include "ashlar/ops.hpp"
#include "base/math/philox.hpp"
#include "graph/cost.hpp"
#include "graph/program.hpp"
#include "graph/recompute_load.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {
namespace {

/// What the passes after rematerialize plan for one rank.
PlannedHeight planned_height(const Graph& graph) {
  ShardOptions options;
  StateLayout states;
  const FlatLayout layout(graph.parameters, graph.units, 1);
  const Graph sharded = shard(graph, layout, options);
  const Program program = compile(sharded, {}, {}, states);
  return {states.bytes(Space::state) + states.bytes(Space::state_window) + program.heights[2] +
              program.heights[3],
          std::ssize(sharded.nodes)};
}

/// A chain of layers of random widths in one or two units, some cheap, some dear.
Graph small_graph(std::uint64_t seed) {
  return trace_training(
      [&](Tracer& t) {
        std::uint32_t draw = 0;
        const auto pick = [&](std::uint32_t n) { return philox(seed, 5, draw++)[0] % n; };
        std::int64_t width = 8;
        Value x = t.input("x", DType::f32, {64, width});
        const std::uint32_t layers = 3 + pick(2);
        for (std::uint32_t layer = 0; layer < layers; ++layer) {
          const auto unit = t.unit(layer < 2 ? "low" : "high");
          const std::int64_t next = 4 + 4 * pick(8);
          const std::string name = "w" + std::to_string(layer);
          const Value w = t.parameter(
              {name, {width, next}, DType::f32, 0, true, true, {Initializer::Kind::normal, 0.5}});
          x = linear(x, w, {});
          width = next;
          x = pick(2) == 0 ? tanh(x) : gelu(x);
          if (pick(3) == 0) x = multiply(x, exp(x));
        }
        return mean(multiply(x, x));
      },
      {});
}

}  // namespace

TEST_CASE("recompute search: on small graphs within 2 % of the best subset, whatever the budget") {
  constexpr std::int64_t kDearer = 4;  // as if nodes were so many: few subsets are priced
  int graphs = 0;
  double worst = 1;
  for (std::uint64_t seed = 0; seed < 40 && graphs < 4; ++seed) {
    const Graph joint = small_graph(seed);
    const RecomputeLoad load(joint, {}, false);
    std::vector<ValueId> free;
    for (ValueId id = 0; id < static_cast<ValueId>(joint.values.size()); ++id) {
      if (load.candidate(id)) free.push_back(id);
    }
    if (free.size() < 11 || free.size() > 12) continue;
    ++graphs;
    CAPTURE(seed);
    std::size_t priced = 0;
    const auto choices = recompute_choices(joint, {}, false, [&](const Graph& graph) {
      ++priced;
      const PlannedHeight planned = planned_height(graph);
      return PlannedHeight{planned.bytes, kDearer * planned.nodes};
    });
    REQUIRE(!choices.empty());
    CHECK(priced <= (std::size_t{1} << free.size()) / 4);
    const double base = flops_of(joint);
    std::vector<std::pair<std::int64_t, double>> subsets;  // height, operations
    for (std::uint32_t mask = 0; mask < (1U << free.size()); ++mask) {
      Remade remade(joint.values.size(), false);
      for (std::size_t i = 0; i < free.size(); ++i)
        remade[static_cast<std::size_t>(free[i])] = (mask >> i & 1) != 0;
      const Graph graph = rematerialize(joint, remade);
      subsets.emplace_back(planned_height(graph).bytes, flops_of(graph));
    }
    std::sort(subsets.begin(), subsets.end());
    std::int64_t last = 0;
    for (const auto& [budget, unused] : subsets) {
      if (std::exchange(last, budget) == budget) continue;
      double best = 0;
      for (const auto& [height, operations] : subsets) {
        if (height <= budget && (best == 0 || operations < best)) best = operations;
      }
      const auto ours = std::find_if(choices.begin(), choices.end(),
                                     [&](const auto& choice) { return choice.height <= budget; });
      if (ours == choices.end()) {
        worst = std::max(worst,
                         static_cast<double>(choices.back().height) / static_cast<double>(budget));
        CHECK(static_cast<double>(choices.back().height) <= 1.02 * static_cast<double>(budget));
      } else {
        worst = std::max(worst, (base + ours->extra_flops) / best);
        CHECK(base + ours->extra_flops <= 1.02 * best);
      }
    }
  }
  MESSAGE("worst ratio " << worst << " on " << graphs << " graphs");
  CHECK(graphs >= 4);
}

TEST_CASE("recompute search: work rises as the planned height falls, as counted on the graph") {
  const GptConfig config{
      .layers = 4, .heads = 2, .width = 32, .positions = 64, .vocabulary = 61, .inner = 128};
  const ModelTrace how{
      .batch = 4, .sequence = 64, .dtype = DType::f32, .dropout = 0.1, .frozen = {}};
  const Graph joint = trace_training([&](Tracer& t) { return gpt_loss(t, config, how); }, {});
  const auto choices = recompute_choices(joint, {}, false, planned_height);
  REQUIRE(choices.size() > 4);
  CHECK(choices.front().extra_flops == 0);
  const double base = flops_of(joint);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const Graph graph = rematerialize(joint, choices[i].remade);
    CHECK(planned_height(graph).bytes == choices[i].height);
    CHECK(flops_of(graph) - base == doctest::Approx(choices[i].extra_flops).epsilon(1e-9));
    if (i == 0) continue;
    CHECK(choices[i].height < choices[i - 1].height);
    CHECK(choices[i].extra_flops > choices[i - 1].extra_flops);
  }
  CHECK(choices.back().height <= planned_height(recompute(joint, Recompute::per_unit)).bytes);
  MESSAGE(choices.size() << " choices down to " << choices.back().height << " from "
                         << choices.front().height << " for " << choices.back().extra_flops / base);
}

TEST_CASE("recompute search: what the passes compile is what it is charged for") {
  const Graph joint = small_graph(1);
  const Graph units = recompute(joint, Recompute::per_unit);
  const auto priced = [&](std::int64_t nodes) {
    std::int64_t calls = 0;
    const auto choices = recompute_choices(joint, {}, false, [&](const Graph& graph) {
      ++calls;
      return PlannedHeight{planned_height(graph).bytes, nodes};
    });
    CHECK(choices.back().height <= planned_height(units).bytes);
    return calls;
  };
  CHECK(priced(1'000'000) == 2);  // keeping everything, and whole units
  CHECK(priced(20'000) <= 5);
  CHECK(priced(1'000) > 20);
  CHECK(priced(1'000) <= 100);
}

}  // namespace ashlar
