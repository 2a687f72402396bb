// Rows of layer norm (Ba et al., arXiv:1607.06450), alone and fused with the residual addition.
#include "ops/expansion.hpp"
#include "ops/layer_norm_kernels.hpp"

namespace ashlar {
namespace {

void check_parameters(const TensorType& x, const TensorType& weight, const TensorType& bias) {
  require_float(x);
  require(x.shape.rank() >= 1 && x.shape[-1] > 0, "{} has no last axis to normalise",
          to_string(x.shape));
  const TensorType expected{x.dtype, {x.shape[-1]}};
  require(weight == expected && bias == expected, "weight and bias are {} and {}, not {}",
          describe(weight), describe(bias), describe(expected));
}

/// Mean or reciprocal deviation of each row.
TensorType statistics_of(const TensorType& x) {
  Shape rows = Shape(x.shape.extents().first(static_cast<std::size_t>(x.shape.rank() - 1)));
  return {statistics_dtype(x.dtype), rows};
}

// Expansions: mean and reciprocal deviation are residuals, made again from x.
Value normalised(Value x, double epsilon) {
  const double n = static_cast<double>(x.shape()[-1]);
  const Value centred = subtract(x, scale(row_sums(x), 1 / n));
  const Value variance = scale(row_sums(multiply(centred, centred)), 1 / n);
  const Value shifted = add(variance, constant(x.tracer(), epsilon, x.dtype(), {}));
  return multiply(centred, exp(scale(log(shifted), -0.5)));
}
std::vector<Value> expand_layer_norm(std::span<const Value> inputs, const Attributes& attributes) {
  const Value y =
      multiply(normalised(wide(inputs[0]), attributes.number("epsilon")), wide(inputs[1]));
  return {cast(add(y, wide(inputs[2])), inputs[0].dtype()), {}, {}};
}
std::vector<Value> expand_backward(std::span<const Value> inputs, const Attributes& attributes) {
  const double epsilon = attributes.number("epsilon");
  const Value dy = multiply(wide(inputs[4]), wide(inputs[1]));
  Value dx = pull([epsilon](Value x) { return normalised(x, epsilon); }, wide(inputs[0]), dy);
  if (inputs[5]) dx = add(dx, wide(inputs[5]));
  return {cast(dx, inputs[0].dtype())};
}
std::vector<Value> expand_parameters(std::span<const Value> inputs, const Attributes& attributes) {
  const Value x = as_matrix(wide(inputs[0])), dy = as_matrix(wide(inputs[3]));
  const Value product = multiply(normalised(x, attributes.number("epsilon")), dy);
  return {sum_as(product, 1, static_cast<DType>(attributes.integer("weight_dtype"))),
          sum_as(dy, 1, static_cast<DType>(attributes.integer("bias_dtype")))};
}

// dx
const OpDef kBackward{
    .name = "layer_norm_backward",  // x, weight, mean, rstd, dy, dsum (may be absent)
    .shape = [](std::span<const TensorType> inputs,
                const Attributes&) { return std::vector{inputs[0]}; },
    .expand = expand_backward,
    .may_reuse = {5, 4, 0},
    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 12); },
    .run = kernels::layer_norm_backward};

// dweight, dbias
const OpDef kParameters{.name = "layer_norm_parameters",  // x, mean, rstd, dy
                        .shape =
                            [](std::span<const TensorType> inputs, const Attributes& attributes) {
                              const Shape row{inputs[0].shape[-1]};
                              return std::vector<TensorType>{
                                  {static_cast<DType>(attributes.integer("weight_dtype")), row},
                                  {static_cast<DType>(attributes.integer("bias_dtype")), row}};
                            },
                        .expand = expand_parameters,
                        .workspace =
                            [](const OpShapes& shapes, const Backend&) {
                              return kernels::layer_norm_parameters_workspace(shapes.inputs[0]);
                            },
                        .cost =
                            [](const OpShapes& shapes) {
                              Cost cost = memory_cost(shapes, 0);
                              cost.flops = 5 * static_cast<double>(shapes.inputs[0].elements());
                              return cost;
                            },
                        .run = kernels::layer_norm_parameters};

struct Gradients {
  Value x, weight, bias;
};

/// `first`: index of the weight among the inputs; x is what was normalised.
Gradients backward(const VjpArguments& a, std::size_t first, Value x, Value mean, Value rstd,
                   Value dy, Value dsum, bool needs_x) {
  Gradients gradients;
  if (a.needed[first] || a.needed[first + 1]) {
    const Value operands[] = {x, mean, rstd, dy};
    const auto results =
        a.tracer.apply(kParameters, operands,
                       {{"weight_dtype", static_cast<std::int64_t>(a.gradient_dtypes[first])},
                        {"bias_dtype", static_cast<std::int64_t>(a.gradient_dtypes[first + 1])},
                        {"epsilon", a.attributes.number("epsilon")}});
    gradients.weight = results[0];
    gradients.bias = results[1];
  }
  if (needs_x)
    gradients.x = a.tracer.apply1(kBackward, {x, a.inputs[first], mean, rstd, dy, dsum},
                                  {{"epsilon", a.attributes.number("epsilon")}});
  return gradients;
}

void require_no_statistics_gradient(Value mean, Value rstd) {
  require(!mean && !rstd, "layer_norm: mean and deviation are residuals and not differentiable");
}

// layer_norm
std::vector<TensorType> layer_norm_shape(std::span<const TensorType> inputs, const Attributes&) {
  check_parameters(inputs[0], inputs[1], inputs[2]);
  return {inputs[0], statistics_of(inputs[0]), statistics_of(inputs[0])};
}
std::vector<Value> layer_norm_vjp(const VjpArguments& a) {
  require_no_statistics_gradient(a.cotangents[1], a.cotangents[2]);
  const Gradients g =
      backward(a, 1, a.inputs[0], a.outputs[1], a.outputs[2], a.cotangents[0], {}, a.needed[0]);
  return {g.x ? cast(g.x, a.gradient_dtypes[0]) : Value(), g.weight, g.bias};
}
const OpDef kLayerNorm{
    .name = "layer_norm",
    .shape = layer_norm_shape,
    .vjp = layer_norm_vjp,
    .expand = expand_layer_norm,
    .may_reuse = {0},
    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 8); },
    .rebuild =
        [](std::span<const Value> inputs, std::span<const Value>, const Attributes& attributes) {
          return layer_norm(inputs[0], inputs[1], inputs[2], attributes.number("epsilon"));
        },
    .run = kernels::layer_norm};

// add_layer_norm
std::vector<TensorType> add_layer_norm_shape(std::span<const TensorType> inputs,
                                             const Attributes&) {
  check_parameters(inputs[0], inputs[2], inputs[3]);
  require(inputs[0] == inputs[1], "x and residual differ: {} and {}", describe(inputs[0]),
          describe(inputs[1]));
  return {inputs[0], inputs[0], statistics_of(inputs[0]), statistics_of(inputs[0])};
}
std::vector<Value> add_layer_norm_vjp(const VjpArguments& a) {
  require_no_statistics_gradient(a.cotangents[2], a.cotangents[3]);
  const Value dsum = a.cotangents[0], dy = a.cotangents[1];
  Gradients g{dsum, {}, {}};
  if (dy)
    g = backward(a, 2, a.outputs[0], a.outputs[2], a.outputs[3], dy, dsum,
                 a.needed[0] || a.needed[1]);
  return {a.needed[0] ? cast(g.x, a.gradient_dtypes[0]) : Value(),
          a.needed[1] ? cast(g.x, a.gradient_dtypes[1]) : Value(), g.weight, g.bias};
}
std::vector<Value> expand_add_layer_norm(std::span<const Value> inputs,
                                         const Attributes& attributes) {
  const Value total = add(inputs[0], inputs[1]);
  return {total, layer_norm(total, inputs[2], inputs[3], attributes.number("epsilon")), {}, {}};
}
const OpDef kAddLayerNorm{.name = "add_layer_norm",
                          .shape = add_layer_norm_shape,
                          .vjp = add_layer_norm_vjp,
                          .expand = expand_add_layer_norm,
                          .may_reuse = {0, 1},
                          .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 9); },
                          .rebuilt = 1,
                          .rebuild =
                              [](std::span<const Value> inputs, std::span<const Value> outputs,
                                 const Attributes& attributes) {
                                return layer_norm(outputs[0], inputs[2], inputs[3],
                                                  attributes.number("epsilon"));
                              },
                          .run = kernels::add_layer_norm};

}  // namespace

Value layer_norm(Value x, Value weight, Value bias, double epsilon, Where where) {
  const Value operands[] = {x, weight, bias};
  return x.tracer().apply(kLayerNorm, operands, {{"epsilon", epsilon}}, where)[0];
}

std::pair<Value, Value> add_layer_norm(Value x, Value residual, Value weight, Value bias,
                                       double epsilon, Where where) {
  const Value operands[] = {x, residual, weight, bias};
  const auto results = x.tracer().apply(kAddLayerNorm, operands, {{"epsilon", epsilon}}, where);
  return {results[0], results[1]};
}

}  // namespace ashlar
