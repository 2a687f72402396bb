// What backward makes again has the bits of what forward made, whatever is chosen.
#include "graph/rematerialize.hpp"

#include <doctest/doctest.h>

#include <cstring>

#include "ashlar/error.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/ops.hpp"
#include "base/math/philox.hpp"
#include "graph/cost.hpp"
#include "graph/evaluate.hpp"
#include "runtime/thread_pool.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kBatch = 2, kPositions = 5, kChannels = 12;

Graph joint_gpt(double dropout = 0, std::int64_t layers = 3) {
  const GptConfig config{.layers = layers,
                         .heads = 2,
                         .width = kChannels,
                         .positions = 6,
                         .vocabulary = 31,
                         .inner = 4 * kChannels};
  ModelTrace how;
  how.batch = kBatch;
  how.sequence = kPositions;
  how.dropout = dropout;
  return trace_training([&](Tracer& t) { return gpt_loss(t, config, how); }, {});
}

/// Loss and gradients by the plain evaluator, bytes by name.
std::map<std::string, std::vector<std::byte>> results(const Graph& graph) {
  std::vector<Buffer> buffers;
  std::map<std::string, TensorView> inputs;
  std::uint64_t stream = 0;
  for (const ValueId id : graph.inputs) {
    const ValueInfo& value = graph[id];
    buffers.emplace_back(host_memory(), value.type.bytes(), Category::input);
    const TensorView view = buffers.back().view(value.type.dtype, value.type.shape);
    ++stream;
    for (std::int64_t i = 0; i < view.elements(); ++i) {
      const std::uint32_t word = philox(3, stream, static_cast<std::uint64_t>(i))[0];
      if (view.dtype == DType::i32) {
        view.as<std::int32_t>()[i] = static_cast<std::int32_t>(word % 31);
      } else {
        view.as<float>()[i] = value.name == kLossCotangent ? 1.0F : uniform(word) - 0.4F;
      }
    }
    inputs[value.name] = view;
  }
  ThreadPool pool(1);
  RunContext context;
  context.pool = &pool;
  std::map<std::string, std::vector<std::byte>> bytes;
  for (const auto& [name, tensor] : evaluate(graph, inputs, context, host_memory(), {})) {
    const TensorView& view = tensor.second;
    bytes[name].assign(view.data, view.data + view.bytes());
  }
  return bytes;
}

/// Bytes of forward values that backward nodes read, views counted with what they view.
std::int64_t kept_bytes(const Graph& graph) {
  std::vector<bool> kept(graph.values.size(), false);
  for (const Node& node : graph.nodes) {
    if (!node.backward) continue;
    for (ValueId id : node.inputs) {
      while (id != kNoValue && graph[id].producer >= 0 &&
             graph.nodes[static_cast<std::size_t>(graph[id].producer)].op->view != nullptr)
        id = graph.nodes[static_cast<std::size_t>(graph[id].producer)].inputs[0];
      if (id != kNoValue && graph[id].producer >= 0 &&
          !graph.nodes[static_cast<std::size_t>(graph[id].producer)].backward)
        kept[static_cast<std::size_t>(id)] = true;
    }
  }
  std::int64_t bytes = 0;
  for (std::size_t id = 0; id < kept.size(); ++id)
    bytes += kept[id] ? graph.values[id].type.bytes() : 0;
  return bytes;
}

}  // namespace

TEST_CASE("rematerialize: every choice gives the same bits") {
  const Graph joint = joint_gpt(0.2);
  const auto expected = results(joint);
  REQUIRE(expected.size() > 10);
  for (const Remade& remade :
       {cheap_to_remake(joint), attention_remade(joint), units_remade(joint)}) {
    const Graph graph = rematerialize(joint, remade);
    validate(graph);
    CHECK(results(graph) == expected);
  }
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Remade some(joint.values.size(), false);
    for (std::size_t id = 0; id < some.size(); ++id)
      some[id] = may_be_remade(joint, static_cast<ValueId>(id)) && philox(seed, 1, id)[0] % 2 == 0;
    const Graph graph = rematerialize(joint, some);
    validate(graph);
    CAPTURE(seed);
    CHECK(results(graph) == expected);
  }
}

TEST_CASE("rematerialize: each step keeps less for more work; none keeps at most 16 BTC a block") {
  const Graph joint = joint_gpt();
  const Graph cheap = recompute(joint, Recompute::cheap);
  const Graph selective = recompute(joint, Recompute::selective);
  const Graph units = recompute(joint, Recompute::per_unit);
  CHECK(kept_bytes(cheap) < kept_bytes(joint));
  CHECK(kept_bytes(selective) < kept_bytes(cheap));
  CHECK(kept_bytes(units) < kept_bytes(selective));
  CHECK(flops_of(joint) < flops_of(cheap));
  CHECK(flops_of(cheap) < flops_of(selective));
  CHECK(flops_of(selective) < flops_of(units));
  CHECK(flops_of(units) < 1.5 * flops_of(joint));
  // Besides, statistics: two norms' means and deviations, attention's log-sums.
  const std::int64_t btc = 4 * kBatch * kPositions * kChannels, small = 4 * kBatch * kPositions * 6;
  const auto per_block = [](Recompute how) {
    return kept_bytes(recompute(joint_gpt(0, 4), how)) -
           kept_bytes(recompute(joint_gpt(0, 3), how));
  };
  CHECK(per_block(Recompute::none) <= 16 * btc + small);
  CHECK(per_block(Recompute::cheap) <= 10 * btc + small);
  CHECK(per_block(Recompute::selective) <= 9 * btc + small);
  CHECK(per_block(Recompute::per_unit) <= btc + small);
}

}  // namespace ashlar
