// Rows of causal attention.
#include "ops/attention_kernels.hpp"
#include "ops/check.hpp"

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
  cost.kind = Cost::Class::product;
  cost.flops = products * static_cast<double>(s.batch * s.channels) *
               static_cast<double>(s.positions) * static_cast<double>(s.positions + 1);
  return cost;
}

std::shared_ptr<const void> prepare(const OpShapes&, const Backend& backend) {
  return std::make_shared<const AttentionPlan>(AttentionPlan{backend.threads});
}

const OpDef kAttentionBackward{
    .name = "causal_attention_backward",  // qkv, out, lse, dout
    .shape = [](std::span<const TensorType> inputs,
                const Attributes&) { return std::vector{inputs[0]}; },
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
