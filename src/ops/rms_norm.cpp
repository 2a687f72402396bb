// Rows of rms norm (Zhang and Sennrich, arXiv:1910.07467).
#include "ops/expansion.hpp"
#include "ops/rms_norm_kernels.hpp"

namespace ashlar {
namespace {

/// x / sqrt(mean(x^2) + epsilon)
Value normalised(Value x, double epsilon) {
  const Value square = scale(row_sums(multiply(x, x)), 1 / static_cast<double>(x.shape()[-1]));
  const Value shifted = add(square, constant(x.tracer(), epsilon, x.dtype(), {}));
  return multiply(x, exp(scale(log(shifted), -0.5)));
}

// Expansions: the reciprocal deviation is a residual, made again from x.
std::vector<Value> expand_rms_norm(std::span<const Value> inputs, const Attributes& attributes) {
  const Value xhat = normalised(wide(inputs[0]), attributes.number("epsilon"));
  return {cast(multiply(xhat, wide(inputs[1])), inputs[0].dtype()), {}};
}
std::vector<Value> expand_backward(std::span<const Value> inputs, const Attributes& attributes) {
  const double epsilon = attributes.number("epsilon");
  const Value g = multiply(wide(inputs[3]), wide(inputs[1]));
  const Value dx = pull([epsilon](Value x) { return normalised(x, epsilon); }, wide(inputs[0]), g);
  return {cast(dx, inputs[0].dtype())};
}
std::vector<Value> expand_weight(std::span<const Value> inputs, const Attributes& attributes) {
  const Value xhat = normalised(as_matrix(wide(inputs[0])), attributes.number("epsilon"));
  return {sum_as(multiply(xhat, as_matrix(wide(inputs[2]))), 1, dtype_attribute(attributes))};
}

const OpDef kBackward{.name = "rms_norm_backward",  // x, weight, rstd, dy -> dx
                      .shape = [](std::span<const TensorType> inputs,
                                  const Attributes&) { return std::vector{inputs[0]}; },
                      .expand = expand_backward,
                      .may_reuse = {3, 0},
                      .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 9); },
                      .run = kernels::rms_norm_backward};

const OpDef kWeight{
    .name = "rms_norm_weight",  // x, rstd, dy -> dweight
    .shape =
        [](std::span<const TensorType> inputs, const Attributes& attributes) {
          return std::vector<TensorType>{{dtype_attribute(attributes), {inputs[0].shape[-1]}}};
        },
    .expand = expand_weight,
    .workspace =
        [](const OpShapes& shapes, const Backend&) {
          return kernels::rms_norm_weight_workspace(shapes.inputs[0]);
        },
    .cost =
        [](const OpShapes& shapes) {
          Cost cost = memory_cost(shapes, 0);
          cost.flops = 3 * static_cast<double>(shapes.inputs[0].elements());
          return cost;
        },
    .run = kernels::rms_norm_weight};

std::vector<TensorType> rms_norm_shape(std::span<const TensorType> inputs, const Attributes&) {
  const TensorType &x = inputs[0], &weight = inputs[1];
  require_float(x);
  require(x.shape.rank() >= 1 && x.shape[-1] > 0, "{} has no last axis to normalise",
          to_string(x.shape));
  const TensorType expected{x.dtype, {x.shape[-1]}};
  require(weight == expected, "weight is {}, not {}", describe(weight), describe(expected));
  const Shape rows(x.shape.extents().first(static_cast<std::size_t>(x.shape.rank() - 1)));
  return {x, {statistics_dtype(x.dtype), rows}};
}

std::vector<Value> rms_norm_vjp(const VjpArguments& a) {
  require(!a.cotangents[1], "rms_norm: the deviation is a residual and not differentiable");
  const Value x = a.inputs[0], rstd = a.outputs[1], dy = a.cotangents[0];
  const double epsilon = a.attributes.number("epsilon");
  std::vector<Value> gradients(2);
  if (a.needed[0])
    gradients[0] =
        cast(a.tracer.apply1(kBackward, {x, a.inputs[1], rstd, dy}, {{"epsilon", epsilon}}),
             a.gradient_dtypes[0]);
  if (a.needed[1])
    gradients[1] = a.tracer.apply1(
        kWeight, {x, rstd, dy},
        {{"dtype", static_cast<std::int64_t>(a.gradient_dtypes[1])}, {"epsilon", epsilon}});
  return gradients;
}

const OpDef kRmsNorm{
    .name = "rms_norm",
    .shape = rms_norm_shape,
    .vjp = rms_norm_vjp,
    .expand = expand_rms_norm,
    .may_reuse = {0},
    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 5); },
    .rebuild =
        [](std::span<const Value> inputs, std::span<const Value>, const Attributes& attributes) {
          return rms_norm(inputs[0], inputs[1], attributes.number("epsilon"));
        },
    .run = kernels::rms_norm};

}  // namespace

Value rms_norm(Value x, Value weight, double epsilon, Where where) {
  const Value operands[] = {x, weight};
  return x.tracer().apply(kRmsNorm, operands, {{"epsilon", epsilon}}, where)[0];
}

}  // namespace ashlar
