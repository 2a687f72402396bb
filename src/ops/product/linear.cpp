// x W + b, and gelu(x W + b) with the pre-activation kept for its backward.
#include <array>

#include "ops/elementwise_kernels.hpp"
#include "ops/expansion.hpp"
#include "ops/product/linear_rows.hpp"
#include "ops/product/rows.hpp"

namespace ashlar {
namespace {

bool has_bias(const TensorType& bias) { return bias.shape.rank() == 1; }

TensorType result_type(std::span<const TensorType> inputs) {
  const TensorType &x = inputs[0], &weight = inputs[1], &bias = inputs[2];
  require_float(x);
  require(x.dtype == weight.dtype, "x and weight differ in type: {} and {}", describe(x),
          describe(weight));
  require(x.shape.rank() >= 1 && weight.shape.rank() == 2 && x.shape[-1] == weight.shape[0],
          "x {} does not fit weight {}", describe(x), describe(weight));
  require(!has_bias(bias) || bias == TensorType{x.dtype, {weight.shape[1]}},
          "bias {} does not fit weight {}", describe(bias), describe(weight));
  TensorType result = x;
  result.shape[-1] = weight.shape[1];
  return result;
}

}  // namespace

Gemm linear_gemm(std::span<const TensorType> inputs) {
  const TensorType &x = inputs[0], &weight = inputs[1];
  return {.m = rows_of(x.shape),
          .n = weight.shape[1],
          .k = weight.shape[0],
          .dtype = x.dtype,
          .result = x.dtype,
          .bias = has_bias(inputs[2])};
}

Cost product_cost(const OpShapes& shapes, const Gemm& gemm) {
  Cost cost = memory_cost(shapes, 2.0 * static_cast<double>(gemm.k));
  cost.kind = Cost::Class::product;
  return cost;
}

namespace {

std::int64_t product_workspace(const OpShapes& shapes, const Backend& backend) {
  return GemmPlan(linear_gemm(shapes.inputs), backend).workspace_bytes();
}
std::shared_ptr<const void> product_prepare(const OpShapes& shapes, const Backend& backend) {
  return std::make_shared<const GemmPlan>(linear_gemm(shapes.inputs), backend);
}

Cost linear_cost(const OpShapes& shapes) {
  return product_cost(shapes, linear_gemm(shapes.inputs));
}

void run_product(const KernelArguments& arguments, const TensorView& result) {
  static_cast<const GemmPlan*>(arguments.plan)
      ->run(arguments.context, arguments.inputs[0].data, arguments.inputs[1].data,
            arguments.inputs[2].data, result.data, arguments.workspace);
}

/// dx and dweight for a cotangent dy of the product.
std::vector<Value> product_gradients(const VjpArguments& v, Value dy) {
  std::vector<Value> gradients(3);
  const Value x = v.inputs[0], weight = v.inputs[1];
  const Shape shape = x.shape();  // a copy: the graph grows below
  if (v.needed[0])
    gradients[0] =
        reshape(matmul(dy, weight, {.transpose_b = true, .dtype = v.gradient_dtypes[0]}), shape);
  if (v.needed[1])
    gradients[1] = matmul(as_matrix(x), dy, {.transpose_a = true, .dtype = v.gradient_dtypes[1]});
  return gradients;
}

// linear
std::vector<TensorType> linear_shape(std::span<const TensorType> inputs, const Attributes&) {
  return {result_type(inputs)};
}
std::vector<Value> linear_vjp(const VjpArguments& v) {
  const Value dy = as_matrix(v.cotangents[0]);
  std::vector<Value> gradients = product_gradients(v, dy);
  if (v.needed[2]) gradients[2] = sum_as(dy, 1, v.gradient_dtypes[2]);
  return gradients;
}
std::vector<Value> expand_linear(std::span<const Value> inputs, const Attributes&) {
  Shape shape = inputs[0].shape();
  shape[-1] = inputs[1].shape()[1];
  const Value y = matmul(as_matrix(inputs[0]), inputs[1]);
  return {reshape(inputs[2] ? add(y, inputs[2]) : y, shape)};
}
void linear_run(const KernelArguments& arguments) { run_product(arguments, arguments.outputs[0]); }
const OpDef kLinear{.name = "linear",
                    .shape = linear_shape,
                    .vjp = linear_vjp,
                    .expand = expand_linear,
                    .workspace = product_workspace,
                    .cost = linear_cost,
                    .prepare = product_prepare,
                    .run = linear_run};

// linear_gelu: outputs gelu(h) and h
std::vector<TensorType> linear_gelu_shape(std::span<const TensorType> inputs, const Attributes&) {
  const TensorType result = result_type(inputs);
  return {result, result};
}
/// h has a cotangent of its own in second derivatives only: backward reads h.
std::vector<Value> second_order_vjp(const VjpArguments& v) {
  Value dh = as_matrix(v.cotangents[1]);
  if (v.cotangents[0]) {
    const Value h = as_matrix(v.outputs[1]), dy = as_matrix(v.cotangents[0]);
    dh = add(dh, pull([](Value x) { return gelu(x); }, h, dy));
  }
  std::vector<Value> gradients = product_gradients(v, dh);
  if (v.needed[2]) gradients[2] = sum_as(dh, 1, v.gradient_dtypes[2]);
  return gradients;
}
std::vector<Value> linear_gelu_vjp(const VjpArguments& v) {
  if (v.cotangents[1]) return second_order_vjp(v);
  const DType bias_dtype =
      v.needed[2] ? v.gradient_dtypes[2] : statistics_dtype(v.inputs[0].dtype());
  const std::array inputs = {as_matrix(v.outputs[1]), as_matrix(v.cotangents[0])};
  const auto dh = v.tracer.apply(kGeluColumnsBackward, inputs,
                                 {{"dtype", static_cast<std::int64_t>(bias_dtype)}});
  std::vector<Value> gradients = product_gradients(v, dh[0]);
  if (v.needed[2]) gradients[2] = dh[1];
  return gradients;
}
void linear_gelu_run(const KernelArguments& arguments) {
  run_product(arguments, arguments.outputs[1]);
  kernels::gelu({.context = arguments.context,
                 .attributes = arguments.attributes,
                 .inputs = arguments.outputs.subspan(1),
                 .outputs = arguments.outputs.first(1)});
}
std::vector<Value> expand_linear_gelu(std::span<const Value> inputs, const Attributes&) {
  const Value h = linear(inputs[0], inputs[1], inputs[2]);
  return {gelu(h), h};
}
Value linear_gelu_rebuild(std::span<const Value>, std::span<const Value> outputs,
                          const Attributes&) {
  return gelu(outputs[1]);
}
const OpDef kLinearGelu{.name = "linear_gelu",
                        .shape = linear_gelu_shape,
                        .vjp = linear_gelu_vjp,
                        .expand = expand_linear_gelu,
                        .workspace = product_workspace,
                        .cost = linear_cost,
                        .rebuild = linear_gelu_rebuild,
                        .prepare = product_prepare,
                        .run = linear_gelu_run};

}  // namespace

Value linear(Value x, Value weight, Value bias, Where where) {
  return x.tracer().apply1(kLinear, {x, weight, bias}, {}, where);
}

Value linear_gelu(Value x, Value weight, Value bias, Where where) {
  const std::array inputs = {x, weight, bias};
  return x.tracer().apply(kLinearGelu, inputs, {}, where)[0];
}

}  // namespace ashlar
