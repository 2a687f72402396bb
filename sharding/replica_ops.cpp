#include "sharding/replica_ops.hpp"

#include "comm/reduce.hpp"
#include "sharding/transfers.hpp"

namespace ashlar {
namespace {

using Types = std::span<const TensorType>;

constexpr std::string_view kSharded = "the shard pass adds it after differentiation";

Work start_sums(const KernelArguments& k) {
  const std::int64_t ranks = k.attributes.integer("ranks");
  Transfers transfers;
  std::int64_t begin = 0;
  for (const TensorView& flat : k.inputs) {
    const std::int64_t shard = flat.elements() / ranks;
    transfers.add(as_flat(flat), k.outputs[0].flat_slice(begin, shard));
    begin += shard;
  }
  return k.context.communicator->reduce_scatter(transfers.span(), {}, k.label, k.context.stream);
}

const OpDef kReduceScatterSums{.name = "reduce_scatter_sums",
                               .shape =
                                   [](Types in, const Attributes& a) {
                                     std::int64_t elements = 0;
                                     for (const TensorType& flat : in)
                                       elements += flat.elements() / a.integer("ranks");
                                     return std::vector<TensorType>{{DType::f32, {elements}}};
                                   },
                               .not_differentiable = kSharded,
                               .recompute = false,
                               .start = start_sums};

const OpDef kAllReduceReplicas{
    .name = "all_reduce_replicas",
    .shape = [](Types in, const Attributes&) { return std::vector<TensorType>{in[0]}; },
    .not_differentiable = kSharded,
    .must_reuse =
        [](std::size_t, const Attributes&) {
          return std::vector<std::pair<int, int>>{{0, 0}};
        },
    .recompute = false,
    .start =
        [](const KernelArguments& k) {
          return k.context.communicator->all_reduce(as_flat(k.outputs[0]), k.label,
                                                    k.context.stream);
        }};

void run_round(const KernelArguments& k) {
  const std::size_t shards = k.outputs.size() - 1;
  const auto squares = k.outputs[shards].span<double>();
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < shards; ++i) {
    const TensorView& shard = k.outputs[i];
    const TensorView own = k.inputs[0].flat_slice(begin, shard.elements());
    const std::byte* const sums = own.data;
    squares[i] = 0;
    detail::reduce({.sources = {&sums, 1},
                    .source_type = own.dtype,
                    .recv = shard.data,
                    .recv_type = shard.dtype,
                    .count = shard.elements(),
                    .round_to_bf16 = k.attributes.integer("round_bf16") != 0,
                    .sum_of_squares = &squares[i]});
    begin += shard.elements();
  }
}

const OpDef kRoundSums{
    .name = "round_sums",
    .shape =
        [](Types in, const Attributes&) {
          std::vector<TensorType> out(in.begin() + 1, in.end());
          out.push_back({DType::f64, {static_cast<std::int64_t>(in.size()) - 1}});
          return out;
        },
    .not_differentiable = kSharded,
    .must_reuse =
        [](std::size_t inputs, const Attributes&) {
          std::vector<std::pair<int, int>> pairs;
          for (int i = 1; i < static_cast<int>(inputs); ++i) pairs.emplace_back(i - 1, i);
          return pairs;
        },
    .recompute = false,
    .run = run_round};

}  // namespace

Value reduce_scatter_sums(Tracer& tracer, std::span<const Value> flats, int shards) {
  const Value sums = tracer.apply(kReduceScatterSums, flats, among(Among::shards, shards))[0];
  tracer.graph()[sums.id()].category = Category::communication;
  return sums;
}

Value all_reduce_replicas(Value sums, int replicas) {
  const Value all =
      sums.tracer().apply1(kAllReduceReplicas, {sums}, among(Among::replicas, replicas));
  sums.tracer().graph()[all.id()].category = Category::communication;
  return all;
}

std::vector<Value> round_sums(Tracer& tracer, Value sums, std::span<const Value> shards,
                              bool round_bf16) {
  std::vector<Value> inputs{sums};
  inputs.insert(inputs.end(), shards.begin(), shards.end());
  return tracer.apply(kRoundSums, inputs, {{"round_bf16", std::int64_t{round_bf16}}});
}

}  // namespace ashlar
