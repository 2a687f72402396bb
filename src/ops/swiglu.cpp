// Rows of silu and of the gated unit made with it (Shazeer, arXiv:2002.05202).
#include "ops/expansion.hpp"
#include "ops/swiglu_kernels.hpp"

namespace ashlar {
namespace {

std::vector<TensorType> same_types(std::span<const TensorType> inputs, const Attributes&) {
  require_float(inputs[0]);
  for (const TensorType& type : inputs)
    require(type == inputs[0], "operands differ: {} and {}", describe(inputs[0]), describe(type));
  return {inputs[0]};
}

template <int Flops>
Cost cost(const OpShapes& shapes) {
  return memory_cost(shapes, Flops);
}

/// x logistic(x) = x/2 (1 + tanh(x/2)), which has no overflow.
Value silu_formula(Value x) {
  const Value half = scale(x, 0.5);
  return add(half, multiply(half, tanh(half)));
}

std::vector<Value> expand_silu_backward(std::span<const Value> inputs, const Attributes&) {
  return {cast(pull(silu_formula, wide(inputs[0]), wide(inputs[1])), inputs[0].dtype())};
}
const OpDef kSiluBackward{.name = "silu_backward",  // x, dy
                          .shape = same_types,
                          .expand = expand_silu_backward,
                          .may_reuse = {0, 1},
                          .cost = cost<24>,
                          .run = kernels::silu_backward};
std::vector<Value> silu_vjp(const VjpArguments& a) {
  const Value dx = a.tracer.apply1(kSiluBackward, {a.inputs[0], a.cotangents[0]});
  return {cast(dx, a.gradient_dtypes[0])};
}
const OpDef kSilu{.name = "silu",
                  .shape = same_types,
                  .vjp = silu_vjp,
                  .jvp = symmetric_jvp,
                  .may_reuse = {0},
                  .cost = cost<20>,
                  .run = kernels::silu};

std::vector<Value> expand_swiglu_backward(std::span<const Value> inputs, const Attributes&) {
  const Value gate = wide(inputs[0]), up = wide(inputs[1]), dy = wide(inputs[2]);
  return {cast(pull(silu_formula, gate, multiply(dy, up)), inputs[0].dtype()),
          cast(multiply(dy, silu_formula(gate)), inputs[1].dtype())};
}
const OpDef kSwigluBackward{
    .name = "swiglu_backward",  // gate, up, dy -> dgate, dup
    .shape =
        [](std::span<const TensorType> inputs, const Attributes& attributes) {
          return std::vector<TensorType>(2, same_types(inputs, attributes)[0]);
        },
    .expand = expand_swiglu_backward,
    .may_reuse = {0, 1, 2},
    .cost = cost<28>,
    .run = kernels::swiglu_backward};
std::vector<Value> swiglu_vjp(const VjpArguments& a) {
  const Value operands[] = {a.inputs[0], a.inputs[1], a.cotangents[0]};
  std::vector<Value> gradients = a.tracer.apply(kSwigluBackward, operands);
  for (std::size_t i = 0; i < 2; ++i)
    gradients[i] = a.needed[i] ? cast(gradients[i], a.gradient_dtypes[i]) : Value();
  return gradients;
}
const OpDef kSwiglu{.name = "swiglu",
                    .shape = same_types,
                    .vjp = swiglu_vjp,
                    .jvp = symmetric_jvp,
                    .may_reuse = {0, 1},
                    .cost = cost<21>,
                    .rebuild = [](std::span<const Value> inputs, std::span<const Value>,
                                  const Attributes&) { return swiglu(inputs[0], inputs[1]); },
                    .run = kernels::swiglu};

}  // namespace

Value silu(Value x, Where where) { return x.tracer().apply1(kSilu, {x}, {}, where); }

Value swiglu(Value gate, Value up, Where where) {
  return gate.tracer().apply1(kSwiglu, {gate, up}, {}, where);
}

}  // namespace ashlar
