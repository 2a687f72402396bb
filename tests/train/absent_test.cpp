// What a step in bf16 must not make: activations or weights in f32.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "ashlar/op.hpp"
#include "ops/product/machine.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kBatch = 8;

/// A step of micro-batches; --recompute as by default.
Graph step_graph(DType dtype, int stage, int ranks) {
  TrainConfig config;
  config.zero = {stage, 5000, 1};
  config.precision = {dtype, dtype};
  config.clip = 0.5;
  const ShardOptions options = shard_options(config, ranks);
  const ModelTrace how{kBatch, kTinySequence, dtype, 0.1, {}};
  Graph joint = trace_training(tiny_gpt_loss(tiny_gpt(), how), options);
  const FlatLayout layout(joint.parameters, joint.units, ranks);
  joint = recompute(joint, Recompute::cheap);
  return shard_step(joint, layout, options, host_backend(1));
}

/// The f32 values of this size or more that a node outside of the update makes.
std::vector<std::string> wide_values(const Graph& graph, std::int64_t elements) {
  std::vector<std::string> found;
  for (const ValueInfo& value : graph.values) {
    if (value.producer < 0 || value.type.dtype != DType::f32) continue;
    const Node& node = graph.nodes[static_cast<std::size_t>(value.producer)];
    if (node.section != Section::update && value.type.elements() >= elements)
      found.push_back(fmt::format("{} {}", node.op->name, to_string(value.type.shape)));
  }
  return found;
}

}  // namespace

TEST_CASE("absent: a bf16 step has neither activations nor copies of weights in f32") {
  const GptConfig model = tiny_gpt();
  const std::int64_t activation = kBatch * kTinySequence * model.width;
  const std::int64_t weight = model.width * model.width;  // of the smallest product
  for (const int stage : {0, 1, 2, 3}) {
    CAPTURE(stage);
    const auto found = wide_values(step_graph(DType::bf16, stage, 2), std::min(activation, weight));
    CAPTURE(fmt::format("{}", fmt::join(found, ", ")));
    CHECK(found.empty());
    CHECK(wide_values(step_graph(DType::f32, stage, 2), activation).size() > 10);
  }
}

}  // namespace ashlar
