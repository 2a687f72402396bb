// Rows of two-dimensional convolution, channels last. The convolution and its two gradients are
// linear in each operand, and each one's gradients are the other two: three rows serve derivatives
// of any order.
#include "ops/conv_kernels.hpp"
#include "ops/expansion.hpp"

namespace ashlar {
namespace {

Attributes attributes_of(Conv2dOptions options) {
  return {{"stride", options.stride}, {"padding", options.padding}};
}
Conv2dOptions options_of(const Attributes& attributes) {
  return {attributes.integer("stride"), attributes.integer("padding")};
}

void require_operands(const TensorType& a, const TensorType& b) {
  require_float(a);
  require(a.dtype == b.dtype, "operands differ in type: {} and {}", describe(a), describe(b));
  require(a.shape.rank() == 4 && b.shape.rank() == 4,
          "takes images [N, H, W, Cin] and weights [kh, kw, Cin, Cout], not {} and {}", describe(a),
          describe(b));
}

/// Extent of the result along one axis.
std::int64_t result_extent(std::int64_t extent, std::int64_t kernel, Conv2dOptions options) {
  require(options.stride >= 1 && options.padding >= 0,
          "stride {} and padding {}: the stride is at least 1, the padding at least 0",
          options.stride, options.padding);
  const std::int64_t padded = extent + 2 * options.padding;
  require(1 <= kernel && kernel <= padded, "a window of {} does not fit {} with padding {}", kernel,
          extent, options.padding);
  return (padded - kernel) / options.stride + 1;
}

Shape result_shape(const Shape& x, const Shape& weight, Conv2dOptions options) {
  require(weight[2] == x[3] && x[3] >= 1 && weight[3] >= 1,
          "weights {} do not take the channels of {}", to_string(weight), to_string(x));
  return {x[0], result_extent(x[1], weight[0], options), result_extent(x[2], weight[1], options),
          weight[3]};
}

/// What all three cost: two operations for each weight and pixel of the result.
Cost cost(const OpShapes& shapes, const Shape& weight, const Shape& y) {
  Cost cost = memory_cost(shapes, 0);
  cost.kind = Cost::Class::product;
  cost.flops = 2 * static_cast<double>(weight.elements()) * static_cast<double>(y[0] * y[1] * y[2]);
  return cost;
}

Value input_gradient(Value dy, Value weight, Conv2dOptions options, const Shape& x, DType dtype);
Value weight_gradient(Value x, Value dy, Conv2dOptions options, const Shape& weight, DType dtype);

Value in_type_of(Value operand, Value g) { return cast(g, operand.dtype()); }

// conv2d_input_gradient
std::vector<TensorType> input_gradient_shape(std::span<const TensorType> inputs,
                                             const Attributes& attributes) {
  const TensorType &dy = inputs[0], &weight = inputs[1];
  require_operands(dy, weight);
  const Shape x{dy.shape[0], attributes.integer("height"), attributes.integer("width"),
                weight.shape[2]};
  require(result_shape(x, weight.shape, options_of(attributes)) == dy.shape,
          "{} is no gradient of {} under {}", describe(dy), to_string(x), describe(weight));
  return {{dy.dtype, x}};
}
std::vector<Value> input_gradient_vjp(const VjpArguments& a) {
  const Conv2dOptions options = options_of(a.attributes);
  const Value dy = a.inputs[0], weight = a.inputs[1], g = in_type_of(dy, a.cotangents[0]);
  return {a.needed[0] ? cast(conv2d(g, weight, {}, options), a.gradient_dtypes[0]) : Value(),
          a.needed[1] ? weight_gradient(g, dy, options, weight.shape(), a.gradient_dtypes[1])
                      : Value()};
}
const OpDef kInputGradient{
    .name = "conv2d_input_gradient",  // dy, weight -> dx
    .shape = input_gradient_shape,
    .vjp = input_gradient_vjp,
    .jvp = multilinear_jvp,
    .workspace =
        [](const OpShapes& s, const Backend&) {
          const Shape& weight = s.inputs[1].shape;
          return kernels::conv2d_workspace(s.inputs[1], weight[3], weight[2]);
        },
    .cost = [](const OpShapes& s) { return cost(s, s.inputs[1].shape, s.inputs[0].shape); },
    .run = kernels::conv2d_input_gradient};

Value input_gradient(Value dy, Value weight, Conv2dOptions options, const Shape& x, DType dtype) {
  Attributes attributes = attributes_of(options);
  attributes.set("height", x[1]);
  attributes.set("width", x[2]);
  return cast(dy.tracer().apply1(kInputGradient, {dy, weight}, attributes), dtype);
}

// conv2d_weight_gradient
std::vector<TensorType> weight_gradient_shape(std::span<const TensorType> inputs,
                                              const Attributes& attributes) {
  const TensorType &x = inputs[0], &dy = inputs[1];
  require_operands(x, dy);
  const Shape weight{attributes.integer("kernel_height"), attributes.integer("kernel_width"),
                     x.shape[3], dy.shape[3]};
  require(result_shape(x.shape, weight, options_of(attributes)) == dy.shape,
          "{} is no gradient of {} under weights {}", describe(dy), describe(x), to_string(weight));
  return {{dtype_attribute(attributes), weight}};
}
std::vector<Value> weight_gradient_vjp(const VjpArguments& a) {
  const Conv2dOptions options = options_of(a.attributes);
  const Value x = a.inputs[0], dy = a.inputs[1], g = in_type_of(x, a.cotangents[0]);
  return {a.needed[0] ? input_gradient(dy, g, options, x.shape(), a.gradient_dtypes[0]) : Value(),
          a.needed[1] ? cast(conv2d(x, g, {}, options), a.gradient_dtypes[1]) : Value()};
}
const OpDef kWeightGradient{
    .name = "conv2d_weight_gradient",  // x, dy -> dweight
    .shape = weight_gradient_shape,
    .vjp = weight_gradient_vjp,
    .jvp = multilinear_jvp,
    .cost = [](const OpShapes& s) { return cost(s, s.outputs[0].shape, s.inputs[1].shape); },
    .run = kernels::conv2d_weight_gradient};

Value weight_gradient(Value x, Value dy, Conv2dOptions options, const Shape& weight, DType dtype) {
  const bool native = dtype == x.dtype() || dtype == statistics_dtype(x.dtype());
  Attributes attributes = attributes_of(options);
  attributes.set("kernel_height", weight[0]);
  attributes.set("kernel_width", weight[1]);
  attributes.set("dtype", static_cast<std::int64_t>(native ? dtype : statistics_dtype(x.dtype())));
  return cast(x.tracer().apply1(kWeightGradient, {x, dy}, attributes), dtype);
}

// conv2d
std::vector<TensorType> conv2d_shape(std::span<const TensorType> inputs,
                                     const Attributes& attributes) {
  const TensorType &x = inputs[0], &weight = inputs[1];
  require_operands(x, weight);
  const TensorType bias{x.dtype, {weight.shape[3]}};
  require(inputs[2].shape.rank() == 0 || inputs[2] == bias, "the bias is {}, not {}",
          describe(inputs[2]), describe(bias));
  return {{x.dtype, result_shape(x.shape, weight.shape, options_of(attributes))}};
}
std::vector<Value> conv2d_vjp(const VjpArguments& a) {
  const Conv2dOptions options = options_of(a.attributes);
  const Value x = a.inputs[0], weight = a.inputs[1], dy = in_type_of(x, a.cotangents[0]);
  return {
      a.needed[0] ? input_gradient(dy, weight, options, x.shape(), a.gradient_dtypes[0]) : Value(),
      a.needed[1] ? weight_gradient(x, dy, options, weight.shape(), a.gradient_dtypes[1]) : Value(),
      a.needed[2] ? sum_as(dy, 0b111, a.gradient_dtypes[2]) : Value()};
}
/// Linear in x, in the weight, and in the bias, which the first of the convolutions adds.
std::vector<Value> conv2d_jvp(const JvpArguments& a) {
  const Conv2dOptions options = options_of(a.attributes);
  const Value dx = a.tangents[0], dweight = a.tangents[1], dbias = a.tangents[2];
  Value tangent;
  if (dx) tangent = conv2d(dx, a.inputs[1], dbias, options);
  if (dweight) {
    const Value other = conv2d(a.inputs[0], dweight, dx ? Value() : dbias, options);
    tangent = tangent ? add(tangent, other) : other;
  }
  return {tangent ? tangent : broadcast_to(dbias, a.outputs[0].shape())};
}
const OpDef kConv2d{
    .name = "conv2d",
    .shape = conv2d_shape,
    .vjp = conv2d_vjp,
    .jvp = conv2d_jvp,
    .workspace =
        [](const OpShapes& s, const Backend&) {
          const Shape& weight = s.inputs[1].shape;
          return kernels::conv2d_workspace(s.inputs[1], weight[2], weight[3]);
        },
    .cost = [](const OpShapes& s) { return cost(s, s.inputs[1].shape, s.outputs[0].shape); },
    .run = kernels::conv2d};

}  // namespace

Value conv2d(Value x, Value weight, Value bias, Conv2dOptions options, Where where) {
  require(!bias || bias.shape().rank() == 1, "{}:{}: conv2d: the bias is {}, not a vector",
          where.file_name(), where.line(), bias ? describe(bias.type()) : "");
  return x.tracer().apply1(kConv2d, {x, weight, bias}, attributes_of(options), where);
}

}  // namespace ashlar
