// Rows of element-wise operations. Broadcasting is a view in front of the row: a row itself sees
// operands of one shape, so its vjp need not know about it.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "ops/copy_kernels.hpp"
#include "ops/elementwise_kernels.hpp"
#include "ops/expansion.hpp"

namespace ashlar {
namespace {

std::vector<TensorType> binary_shape(std::span<const TensorType> inputs, const Attributes&) {
  require_float(inputs[0]);
  require(inputs[0] == inputs[1], "operands differ: {} and {}", describe(inputs[0]),
          describe(inputs[1]));
  return {inputs[0]};
}

std::vector<TensorType> unary_shape(std::span<const TensorType> inputs, const Attributes&) {
  require_float(inputs[0]);
  return {inputs[0]};
}

template <int Flops>
Cost cost(const OpShapes& shapes) {
  return memory_cost(shapes, Flops);
}

/// What is there of a and b, added.
std::vector<Value> add_jvp(const JvpArguments& a) {
  const Value p = a.tangents[0], q = a.tangents[1];
  return {p && q ? add(p, q) : p ? p : q};
}

std::vector<Value> subtract_jvp(const JvpArguments& a) {
  const Value p = a.tangents[0], q = a.tangents[1];
  return {p && q ? subtract(p, q) : p ? p : scale(q, -1)};
}

/// The only cotangent of a unary op, in the type that was asked for.
std::vector<Value> unary_gradient(const VjpArguments& a, Value gradient) {
  return {cast(gradient, a.gradient_dtypes[0])};
}

std::vector<Value> add_vjp(const VjpArguments& a) {
  const Value g = a.cotangents[0];
  return {a.needed[0] ? cast(g, a.gradient_dtypes[0]) : Value(),
          a.needed[1] ? cast(g, a.gradient_dtypes[1]) : Value()};
}

std::vector<Value> subtract_vjp(const VjpArguments& a) {
  const Value g = a.cotangents[0];
  return {a.needed[0] ? cast(g, a.gradient_dtypes[0]) : Value(),
          a.needed[1] ? cast(scale(g, -1), a.gradient_dtypes[1]) : Value()};
}

std::vector<Value> multiply_vjp(const VjpArguments& a) {
  std::vector<Value> gradients(2);
  for (std::size_t i = 0; i < 2; ++i) {
    const DType dtype = a.gradient_dtypes[i];
    if (a.needed[i])
      gradients[i] = multiply(cast(a.cotangents[0], dtype), cast(a.inputs[1 - i], dtype));
  }
  return gradients;
}

/// y = a / b: da = g / b, db = -y g / b.
std::vector<Value> divide_vjp(const VjpArguments& a) {
  std::vector<Value> gradients(2);
  for (std::size_t i = 0; i < 2; ++i) {
    if (!a.needed[i]) continue;
    const DType dtype = a.gradient_dtypes[i];
    const Value quotient = divide(cast(a.cotangents[0], dtype), cast(a.inputs[1], dtype));
    gradients[i] = i == 0 ? quotient : scale(multiply(quotient, cast(a.outputs[0], dtype)), -1);
  }
  return gradients;
}

std::vector<Value> scale_vjp(const VjpArguments& a) {
  return {scale(cast(a.cotangents[0], a.gradient_dtypes[0]), a.attributes.number("factor"))};
}

std::vector<Value> exp_vjp(const VjpArguments& a) {
  return unary_gradient(a, multiply(a.cotangents[0], a.outputs[0]));
}

std::vector<Value> log_vjp(const VjpArguments& a) {
  return unary_gradient(a, divide(a.cotangents[0], a.inputs[0]));
}

const OpDef kAdd{.name = "add",
                 .shape = binary_shape,
                 .vjp = add_vjp,
                 .jvp = add_jvp,
                 .may_reuse = {0, 1},
                 .cost = cost<1>,
                 .run = kernels::add,
                 .strided_inputs = {0, 1}};
const OpDef kSubtract{.name = "subtract",
                      .shape = binary_shape,
                      .vjp = subtract_vjp,
                      .jvp = subtract_jvp,
                      .may_reuse = {0, 1},
                      .cost = cost<1>,
                      .run = kernels::subtract,
                      .strided_inputs = {0, 1}};
const OpDef kMultiply{.name = "multiply",
                      .shape = binary_shape,
                      .vjp = multiply_vjp,
                      .jvp = multilinear_jvp,
                      .may_reuse = {0, 1},
                      .cost = cost<1>,
                      .run = kernels::multiply,
                      .strided_inputs = {0, 1}};
const OpDef kDivide{.name = "divide",
                    .shape = binary_shape,
                    .vjp = divide_vjp,
                    .jvp = symmetric_jvp,
                    .may_reuse = {0, 1},
                    .cost = cost<1>,
                    .run = kernels::divide,
                    .strided_inputs = {0, 1}};
const OpDef kScale{.name = "scale",
                   .shape = unary_shape,
                   .vjp = scale_vjp,
                   .jvp = linear_jvp,
                   .may_reuse = {0},
                   .cost = cost<1>,
                   .run = kernels::scale};
const OpDef kExp{.name = "exp",
                 .shape = unary_shape,
                 .vjp = exp_vjp,
                 .jvp = symmetric_jvp,
                 .may_reuse = {0},
                 .cost = cost<16>,
                 .run = kernels::exp};
const OpDef kLog{.name = "log",
                 .shape = unary_shape,
                 .vjp = log_vjp,
                 .jvp = symmetric_jvp,
                 .may_reuse = {0},
                 .cost = cost<16>,
                 .run = kernels::log};

/// dy (1 - y^2)
std::vector<Value> expand_tanh_backward(std::span<const Value> inputs, const Attributes&) {
  const Value y = inputs[0], dy = inputs[1];
  return {subtract(dy, multiply(dy, multiply(y, y)))};
}
const OpDef kTanhBackward{.name = "tanh_backward",  // (y, dy)
                          .shape = binary_shape,
                          .expand = expand_tanh_backward,
                          .may_reuse = {0, 1},
                          .cost = cost<3>,
                          .run = kernels::tanh_backward,
                          .strided_inputs = {0, 1}};
std::vector<Value> tanh_vjp(const VjpArguments& a) {
  return unary_gradient(a, a.tracer.apply1(kTanhBackward, {a.outputs[0], a.cotangents[0]}));
}
const OpDef kTanh{.name = "tanh",
                  .shape = unary_shape,
                  .vjp = tanh_vjp,
                  .jvp = symmetric_jvp,
                  .may_reuse = {0},
                  .cost = cost<20>,
                  .run = kernels::tanh};

/// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
Value gelu_formula(Value x) {
  const Value cube = multiply(x, multiply(x, x));
  const Value t = tanh(scale(add(x, scale(cube, 0.044715)), std::sqrt(2 / std::numbers::pi)));
  return scale(add(x, multiply(x, t)), 0.5);
}
std::vector<Value> expand_gelu_backward(std::span<const Value> inputs, const Attributes&) {
  return {cast(pull(gelu_formula, wide(inputs[0]), wide(inputs[1])), inputs[0].dtype())};
}
const OpDef kGeluBackward{.name = "gelu_backward",  // (x, dy)
                          .shape = binary_shape,
                          .expand = expand_gelu_backward,
                          .may_reuse = {0, 1},
                          .cost = cost<30>,
                          .run = kernels::gelu_backward,
                          .strided_inputs = {0, 1}};
std::vector<Value> gelu_vjp(const VjpArguments& a) {
  return unary_gradient(a, a.tracer.apply1(kGeluBackward, {a.inputs[0], a.cotangents[0]}));
}
const OpDef kGelu{.name = "gelu",
                  .shape = unary_shape,
                  .vjp = gelu_vjp,
                  .jvp = symmetric_jvp,
                  .may_reuse = {0},
                  .cost = cost<24>,
                  .run = kernels::gelu};

std::vector<TensorType> cast_shape(std::span<const TensorType> inputs,
                                   const Attributes& attributes) {
  const TensorType result{dtype_attribute(attributes), inputs[0].shape};
  require_float(inputs[0]);
  require_float(result);
  return {result};
}
std::vector<Value> cast_vjp(const VjpArguments& a) { return unary_gradient(a, a.cotangents[0]); }
const OpDef kCast{.name = "cast",
                  .shape = cast_shape,
                  .vjp = cast_vjp,
                  .jvp = linear_jvp,
                  .cost = cost<0>,
                  .run = kernels::cast};

std::vector<TensorType> constant_shape(std::span<const TensorType>, const Attributes& attributes) {
  return {{dtype_attribute(attributes), attributes.shape("shape")}};
}
const OpDef kConstant{.name = "constant",
                      .shape = constant_shape,
                      .not_differentiable = "it has no inputs",
                      .cost = cost<0>,
                      .run = kernels::constant};

/// The shape that both operands broadcast to: aligned at the last axis, extents equal or 1.
Shape common_shape(const Shape& a, const Shape& b, std::string_view op, Where where) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape common = longer;
  for (int axis = 1; axis <= shorter.rank(); ++axis) {
    const std::int64_t p = longer[-axis], q = shorter[-axis];
    require(p == q || p == 1 || q == 1, "{}:{}: {}: shapes {} and {} do not broadcast",
            where.file_name(), where.line(), op, to_string(a), to_string(b));
    common[-axis] = p == 1 ? q : p;
  }
  return common;
}

Value binary(const OpDef& op, Value a, Value b, Where where) {
  const Shape shape = common_shape(a.shape(), b.shape(), op.name, where);
  return a.tracer().apply1(op, {broadcast_to(a, shape, where), broadcast_to(b, shape, where)}, {},
                           where);
}

Value unary(const OpDef& op, Value x, Where where) { return x.tracer().apply1(op, {x}, {}, where); }

}  // namespace

Value add(Value a, Value b, Where where) { return binary(kAdd, a, b, where); }
Value subtract(Value a, Value b, Where where) { return binary(kSubtract, a, b, where); }
Value multiply(Value a, Value b, Where where) { return binary(kMultiply, a, b, where); }
Value divide(Value a, Value b, Where where) { return binary(kDivide, a, b, where); }
Value exp(Value x, Where where) { return unary(kExp, x, where); }
Value log(Value x, Where where) { return unary(kLog, x, where); }
Value tanh(Value x, Where where) { return unary(kTanh, x, where); }
Value gelu(Value x, Where where) { return unary(kGelu, x, where); }

Value scale(Value x, double factor, Where where) {
  return x.tracer().apply1(kScale, {x}, {{"factor", factor}}, where);
}

Value cast(Value x, DType dtype, Where where) {
  if (x.dtype() == dtype) return x;
  return x.tracer().apply1(kCast, {x}, {{"dtype", static_cast<std::int64_t>(dtype)}}, where);
}

Value constant(Tracer& tracer, double value, DType dtype, const Shape& shape, Where where) {
  return tracer.apply1(
      kConstant, {},
      {{"value", value}, {"dtype", static_cast<std::int64_t>(dtype)}, {"shape", shape}}, where);
}

}  // namespace ashlar
