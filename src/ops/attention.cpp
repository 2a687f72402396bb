// Rows of causal attention.
#include <cmath>

#include "ops/attention_kernels.hpp"
#include "ops/expansion.hpp"

namespace ashlar {
namespace {

AttentionSizes sizes_of(const TensorType& qkv, const Attributes& attributes) {
  return {qkv.shape[0], qkv.shape[1], qkv.shape[2] / 3, attributes.integer("heads")};
}

std::vector<TensorType> attention_shape(std::span<const TensorType> inputs,
                                        const Attributes& attributes) {
  const TensorType& qkv = inputs[0];
  const std::int64_t heads = attributes.integer("heads");
  require_float(qkv);
  require(qkv.shape.rank() == 3 && qkv.shape[2] % 3 == 0,
          "wants queries, keys and values as (B, T, 3C), not {}", to_string(qkv.shape));
  const AttentionSizes s = sizes_of(qkv, attributes);
  require(heads > 0 && s.channels % heads == 0, "{} channels do not divide into {} heads",
          s.channels, heads);
  return {{qkv.dtype, {s.batch, s.positions, s.channels}},
          {statistics_dtype(qkv.dtype), {s.batch, heads, s.positions}}};
}

/// Products of the lower triangle: `products` of 2 T (T + 1) / 2 D each, per head.
Cost attention_cost(const OpShapes& shapes, double products) {
  const AttentionSizes s = sizes_of(shapes.inputs[0], shapes.attributes);
  Cost cost = memory_cost(shapes, 0);
  cost.kind = Cost::Class::attention;
  cost.flops = products * static_cast<double>(s.batch * s.channels) *
               static_cast<double>(s.positions) * static_cast<double>(s.positions + 1);
  return cost;
}

std::shared_ptr<const void> prepare(const OpShapes&, const Backend& backend) {
  return std::make_shared<const AttentionPlan>(AttentionPlan{backend.threads});
}

const OpDef kCausalMask{
    .name = "causal_mask",  // (T, T): 0 where key <= query, else a huge negative
    .shape =
        [](std::span<const TensorType>, const Attributes& attributes) {
          const std::int64_t positions = attributes.integer("positions");
          return std::vector<TensorType>{{dtype_attribute(attributes), {positions, positions}}};
        },
    .not_differentiable = "it has no inputs",
    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 0); },
    .run = kernels::causal_mask};

/// softmax(q k^T / sqrt(D) + mask) v with the T x T matrix stored.
Value naive_attention(Value qkv, std::int64_t heads) {
  const std::int64_t batch = qkv.shape()[0], positions = qkv.shape()[1];
  const std::int64_t channels = qkv.shape()[2] / 3, size = channels / heads;
  const auto part = [&](std::int64_t i) {
    const Value x = slice(qkv, 2, i * channels, (i + 1) * channels);
    return transpose(reshape(x, {batch, positions, heads, size}), 1, 2);
  };
  const Value mask = qkv.tracer().apply1(
      kCausalMask, {},
      {{"positions", positions}, {"dtype", static_cast<std::int64_t>(qkv.dtype())}});
  const Value scores = matmul(part(0), part(1), {.transpose_b = true});
  const Value p = softmax(add(scale(scores, 1 / std::sqrt(static_cast<double>(size))), mask));
  return reshape(transpose(matmul(p, part(2)), 1, 2), {batch, positions, channels});
}
std::vector<Value> expand_attention(std::span<const Value> inputs, const Attributes& attributes) {
  const Value out = naive_attention(wide(inputs[0]), attributes.integer("heads"));
  return {cast(out, inputs[0].dtype()), {}};
}
/// From qkv and dout: out and the row sums are residuals.
std::vector<Value> expand_backward(std::span<const Value> inputs, const Attributes& attributes) {
  const std::int64_t heads = attributes.integer("heads");
  const Value dqkv = pull([heads](Value qkv) { return naive_attention(qkv, heads); },
                          wide(inputs[0]), wide(inputs[3]));
  return {cast(dqkv, inputs[0].dtype())};
}

const OpDef kAttentionBackward{
    .name = "causal_attention_backward",  // qkv, out, lse, dout
    .shape = [](std::span<const TensorType> inputs,
                const Attributes&) { return std::vector{inputs[0]}; },
    .expand = expand_backward,
    .workspace =
        [](const OpShapes& shapes, const Backend& backend) {
          const TensorType& qkv = shapes.inputs[0];
          return backend.threads *
                 kernels::attention_backward_workspace(sizes_of(qkv, shapes.attributes), qkv.dtype);
        },
    .cost = [](const OpShapes& shapes) { return attention_cost(shapes, 5); },
    .prepare = prepare,
    .run = kernels::attention_backward};

std::vector<Value> attention_vjp(const VjpArguments& a) {
  if (a.cotangents[1])
    throw InvalidArgument("causal_attention: the row sums are residuals and not differentiable");
  const Value dqkv = a.tracer.apply1(
      kAttentionBackward, {a.inputs[0], a.outputs[0], a.outputs[1], a.cotangents[0]}, a.attributes);
  return {cast(dqkv, a.gradient_dtypes[0])};
}

const OpDef kAttention{.name = "causal_attention",
                       .shape = attention_shape,
                       .vjp = attention_vjp,
                       .expand = expand_attention,
                       .workspace =
                           [](const OpShapes& shapes, const Backend& backend) {
                             const TensorType& qkv = shapes.inputs[0];
                             return backend.threads *
                                    kernels::attention_workspace(sizes_of(qkv, shapes.attributes),
                                                                 qkv.dtype);
                           },
                       .cost = [](const OpShapes& shapes) { return attention_cost(shapes, 2); },
                       .prepare = prepare,
                       .run = kernels::attention};

}  // namespace

Value causal_attention(Value qkv, int heads, Where where) {
  return qkv.tracer().apply1(kAttention, {qkv}, {{"heads", std::int64_t{heads}}}, where);
}

}  // namespace ashlar
