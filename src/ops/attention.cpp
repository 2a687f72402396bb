// Rows of causal attention, packed and grouped.
#include <algorithm>
#include <array>
#include <cmath>

#include "ops/attention_kernels.hpp"
#include "ops/expansion.hpp"

namespace ashlar {
namespace {

/// Products over the pairs of a query and a key that it sees: `products` of 2 D flops per pair and
/// head. Sequences of given boundaries count as equally long.
Cost attention_cost(const OpShapes& shapes, const AttentionSizes& s, double products) {
  Cost cost = memory_cost(shapes, 0);
  cost.kind = Cost::Class::attention;
  const double length =
      static_cast<double>(s.rows) / static_cast<double>(std::max<std::int64_t>(s.sequences, 1));
  cost.flops = products * static_cast<double>(s.rows * s.channels()) * (length + 1);
  return cost;
}

std::shared_ptr<const void> prepare(const OpShapes&, const Backend& backend) {
  return std::make_shared<const AttentionPlan>(AttentionPlan{backend.threads});
}

using SizesOf = AttentionSizes (*)(const Shape& query, const Attributes& attributes);

template <SizesOf sizes, int Products>
Cost cost(const OpShapes& shapes) {
  return attention_cost(shapes, sizes(shapes.inputs[0].shape, shapes.attributes), Products);
}
template <SizesOf sizes, std::int64_t (*bytes)(const AttentionSizes&, DType)>
std::int64_t workspace(const OpShapes& shapes, const Backend& backend) {
  const TensorType& query = shapes.inputs[0];
  return backend.threads * bytes(sizes(query.shape, shapes.attributes), query.dtype);
}

/// Reduced row sums of exponentials, in logarithms.
TensorType row_sums_of(const TensorType& query, std::int64_t heads) {
  return {statistics_dtype(query.dtype), {heads, query.shape[0], query.shape[1]}};
}

const OpDef kCausalMask{
    .name = "causal_mask",  // boundaries (may be absent) -> (T, T): 0 where the query sees the key,
                            // else a huge negative
    .shape =
        [](std::span<const TensorType>, const Attributes& attributes) {
          const std::int64_t positions = attributes.integer("positions");
          return std::vector<TensorType>{{dtype_attribute(attributes), {positions, positions}}};
        },
    .not_differentiable = "it has no inputs that have derivatives",
    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 0); },
    .run = kernels::causal_mask};

/// softmax(q k^T / sqrt(D) + mask) v with the T x T matrix stored; all rows are one sample when
/// boundaries are given.
Value naive_attention(std::span<const Value> qkv, Value boundaries, std::int64_t heads,
                      std::int64_t kv_heads) {
  const Shape shape = qkv[0].shape();
  const std::int64_t batch = boundaries ? 1 : shape[0];
  const std::int64_t positions = shape[0] * shape[1] / batch, size = shape[2] / heads;
  /// (B, heads, T, D)
  const auto split = [&](Value x, std::int64_t n) {
    return transpose(reshape(x, {batch, positions, n, size}), 1, 2);
  };
  const auto stacked = [&](Value x) {  // a group's heads under each other
    return reshape(x, {batch, kv_heads, heads / kv_heads * positions, x.shape()[-1]});
  };
  const auto apart = [&](Value x) { return reshape(x, {batch, heads, positions, x.shape()[-1]}); };
  const Value mask = qkv[0].tracer().apply1(
      kCausalMask, {boundaries},
      {{"positions", positions}, {"dtype", static_cast<std::int64_t>(qkv[0].dtype())}});
  const Value k = split(qkv[1], kv_heads), v = split(qkv[2], kv_heads);
  const Value scores = apart(matmul(stacked(split(qkv[0], heads)), k, {.transpose_b = true}));
  const Value p = softmax(add(scale(scores, 1 / std::sqrt(static_cast<double>(size))), mask));
  return reshape(transpose(apart(matmul(stacked(p), v)), 1, 2), shape);
}

// Packed: qkv (B, T, 3C).
Value naive_packed(Value qkv, std::int64_t heads) {
  const std::int64_t channels = qkv.shape()[2] / 3;
  const auto part = [&](std::int64_t i) { return slice(qkv, 2, i * channels, (i + 1) * channels); };
  return naive_attention(std::array{part(0), part(1), part(2)}, {}, heads, heads);
}
std::vector<Value> expand_packed(std::span<const Value> inputs, const Attributes& attributes) {
  const Value out = naive_packed(wide(inputs[0]), attributes.integer("heads"));
  return {cast(out, inputs[0].dtype()), {}};
}
/// From qkv and dout: out and the row sums are residuals.
std::vector<Value> expand_packed_backward(std::span<const Value> inputs,
                                          const Attributes& attributes) {
  const std::int64_t heads = attributes.integer("heads");
  const Value dqkv = pull([heads](Value qkv) { return naive_packed(qkv, heads); }, wide(inputs[0]),
                          wide(inputs[3]));
  return {cast(dqkv, inputs[0].dtype())};
}

const OpDef kPackedBackward{
    .name = "causal_attention_backward",  // qkv, out, lse, dout
    .shape = [](std::span<const TensorType> inputs,
                const Attributes&) { return std::vector{inputs[0]}; },
    .expand = expand_packed_backward,
    .workspace = workspace<packed_sizes, kernels::attention_backward_workspace>,
    .cost = cost<packed_sizes, 5>,
    .prepare = prepare,
    .run = kernels::attention_backward};

std::vector<TensorType> packed_shape(std::span<const TensorType> inputs,
                                     const Attributes& attributes) {
  const TensorType& qkv = inputs[0];
  const std::int64_t heads = attributes.integer("heads");
  require_float(qkv);
  require(qkv.shape.rank() == 3 && qkv.shape[2] % 3 == 0,
          "wants queries, keys and values as (B, T, 3C), not {}", to_string(qkv.shape));
  const std::int64_t channels = qkv.shape[2] / 3;
  require(heads > 0 && channels % heads == 0, "{} channels do not divide into {} heads", channels,
          heads);
  return {{qkv.dtype, {qkv.shape[0], qkv.shape[1], channels}}, row_sums_of(qkv, heads)};
}
std::vector<Value> packed_vjp(const VjpArguments& a) {
  require(!a.cotangents[1], "causal_attention: the row sums are residuals and not differentiable");
  const Value dqkv = a.tracer.apply1(
      kPackedBackward, {a.inputs[0], a.outputs[0], a.outputs[1], a.cotangents[0]}, a.attributes);
  return {cast(dqkv, a.gradient_dtypes[0])};
}
const OpDef kPacked{.name = "causal_attention",
                    .shape = packed_shape,
                    .vjp = packed_vjp,
                    .expand = expand_packed,
                    .workspace = workspace<packed_sizes, kernels::attention_workspace>,
                    .cost = cost<packed_sizes, 2>,
                    .prepare = prepare,
                    .run = kernels::attention};

// Grouped: q (B, T, heads D), k and v (B, T, kv_heads D), boundaries (may be absent).
std::vector<Value> expand_grouped(std::span<const Value> inputs, const Attributes& attributes) {
  const Value out =
      naive_attention(std::array{wide(inputs[0]), wide(inputs[1]), wide(inputs[2])}, inputs[3],
                      attributes.integer("heads"), attributes.integer("kv_heads"));
  return {cast(out, inputs[0].dtype()), {}};
}
std::vector<Value> expand_grouped_backward(std::span<const Value> inputs,
                                           const Attributes& attributes) {
  const std::int64_t heads = attributes.integer("heads"), kv_heads = attributes.integer("kv_heads");
  const Value boundaries = inputs[3], dout = wide(inputs[6]);
  const Function forward = [=](std::span<const Value> qkv) {
    return std::vector{naive_attention(qkv, boundaries, heads, kv_heads)};
  };
  const std::array qkv{wide(inputs[0]), wide(inputs[1]), wide(inputs[2])};
  std::vector<Value> gradients = vjp(forward, qkv).linear({&dout, 1});
  for (Value& gradient : gradients) gradient = cast(gradient, inputs[0].dtype());
  return gradients;
}

const OpDef kGroupedBackward{
    .name = "grouped_query_attention_backward",  // q, k, v, boundaries, out, lse, dout
    .shape =
        [](std::span<const TensorType> inputs, const Attributes&) {
          return std::vector{inputs[0], inputs[1], inputs[2]};
        },
    .expand = expand_grouped_backward,
    .workspace = workspace<grouped_sizes, kernels::attention_backward_workspace>,
    .cost = cost<grouped_sizes, 5>,
    .prepare = prepare,
    .run = kernels::grouped_attention_backward};

std::vector<TensorType> grouped_shape(std::span<const TensorType> inputs,
                                      const Attributes& attributes) {
  const TensorType &q = inputs[0], &boundaries = inputs[3];
  const std::int64_t heads = attributes.integer("heads"), kv_heads = attributes.integer("kv_heads");
  const std::int64_t sequences = attributes.integer("sequences");
  require_float(q);
  require(q.shape.rank() == 3, "wants queries (B, T, heads x D), not {}", to_string(q.shape));
  require(heads > 0 && q.shape[2] % heads == 0, "{} channels do not divide into {} heads",
          q.shape[2], heads);
  require(kv_heads > 0 && heads % kv_heads == 0,
          "{} heads do not divide into {} groups of keys and values", heads, kv_heads);
  const std::int64_t kv_channels = q.shape[2] / heads * kv_heads;
  const TensorType expected{q.dtype, {q.shape[0], q.shape[1], kv_channels}};
  require(inputs[1] == expected && inputs[2] == expected, "keys and values are {} and {}, not {}",
          describe(inputs[1]), describe(inputs[2]), describe(expected));
  require(sequences == 0 || boundaries == TensorType{DType::i32, {sequences + 1}},
          "boundaries are {}, not i32 (S + 1) with S at least 1", describe(boundaries));
  return {q, row_sums_of(q, heads)};
}
std::vector<Value> grouped_vjp(const VjpArguments& a) {
  require(!a.cotangents[1],
          "grouped_query_attention: the row sums are residuals and not differentiable");
  const Value operands[] = {a.inputs[0],  a.inputs[1],  a.inputs[2],    a.inputs[3],
                            a.outputs[0], a.outputs[1], a.cotangents[0]};
  std::vector<Value> gradients = a.tracer.apply(kGroupedBackward, operands, a.attributes);
  for (std::size_t i = 0; i < 3; ++i)
    gradients[i] = a.needed[i] ? cast(gradients[i], a.gradient_dtypes[i]) : Value();
  gradients.emplace_back();
  return gradients;
}
const OpDef kGrouped{.name = "grouped_query_attention",
                     .shape = grouped_shape,
                     .vjp = grouped_vjp,
                     .expand = expand_grouped,
                     .workspace = workspace<grouped_sizes, kernels::attention_workspace>,
                     .cost = cost<grouped_sizes, 2>,
                     .prepare = prepare,
                     .run = kernels::grouped_attention};

}  // namespace

Value causal_attention(Value qkv, int heads, Where where) {
  return qkv.tracer().apply1(kPacked, {qkv}, {{"heads", std::int64_t{heads}}}, where);
}

Value grouped_query_attention(Value q, Value k, Value v, int heads, int kv_heads, Value boundaries,
                              Where where) {
  const std::int64_t sequences =
      boundaries ? std::max<std::int64_t>(boundaries.type().elements() - 1, 1) : 0;
  return q.tracer().apply1(kGrouped, {q, k, v, boundaries},
                           {{"heads", std::int64_t{heads}},
                            {"kv_heads", std::int64_t{kv_heads}},
                            {"sequences", sequences}},
                           where);
}

}  // namespace ashlar
