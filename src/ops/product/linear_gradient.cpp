// Rows of the backward of linear and linear_gelu: a product and the column sums beside it.
#include <algorithm>
#include <array>

#include "ops/expansion.hpp"
#include "ops/product/gelu_columns.hpp"
#include "ops/product/linear_rows.hpp"
#include "ops/product/rows.hpp"
#include "ops/reduce.hpp"

namespace ashlar {

Gemm weight_gradient_gemm(std::span<const TensorType> inputs, const Attributes& attributes) {
  return {.m = inputs[0].shape[1],
          .n = inputs[1].shape[1],
          .k = inputs[0].shape[0],
          .transpose_a = true,
          .dtype = inputs[0].dtype,
          .result = dtype_attribute(attributes)};
}

Gemm gelu_backward_gemm(std::span<const TensorType> inputs) {
  const DType dtype = inputs[0].dtype;
  return {.m = inputs[0].shape[0],
          .n = inputs[1].shape[0],
          .k = inputs[1].shape[1],
          .transpose_b = true,
          .dtype = dtype,
          .result = dtype};
}

namespace {

void require_matrices(const TensorType& a, const TensorType& b) {
  require_float(a);
  require(a.dtype == b.dtype, "operands differ in type: {} and {}", describe(a), describe(b));
  require(a.shape.rank() == 2 && b.shape.rank() == 2, "takes matrices, not {} and {}", describe(a),
          describe(b));
}

DType bias_dtype(const Attributes& attributes) {
  return static_cast<DType>(attributes.integer("bias_dtype"));
}

// linear_weight_gradient
std::vector<TensorType> weight_shape(std::span<const TensorType> inputs,
                                     const Attributes& attributes) {
  const TensorType &x = inputs[0], &dy = inputs[1];
  require_matrices(x, dy);
  require(x.shape[0] == dy.shape[0], "x {} and dy {} differ in rows", describe(x), describe(dy));
  return {{dtype_attribute(attributes), {x.shape[1], dy.shape[1]}},
          {bias_dtype(attributes), {dy.shape[1]}}};
}
std::vector<Value> expand_weight(std::span<const Value> inputs, const Attributes& attributes) {
  const Value x = inputs[0], dy = inputs[1];
  return {matmul(x, dy, {.transpose_a = true, .dtype = dtype_attribute(attributes)}),
          sum_as(dy, 1, bias_dtype(attributes))};
}
std::int64_t weight_workspace(const OpShapes& shapes, const Backend& backend) {
  return GemmPlan(weight_gradient_gemm(shapes.inputs, shapes.attributes), backend)
      .workspace_bytes();
}
std::shared_ptr<const void> weight_prepare(const OpShapes& shapes, const Backend& backend) {
  return std::make_shared<const GemmPlan>(weight_gradient_gemm(shapes.inputs, shapes.attributes),
                                          backend);
}
Cost weight_cost(const OpShapes& shapes) {
  return product_cost(shapes, weight_gradient_gemm(shapes.inputs, shapes.attributes));
}
void weight_run(const KernelArguments& a) {
  static_cast<const GemmPlan*>(a.plan)->run(a.context, a.inputs[0].data, a.inputs[1].data, nullptr,
                                            a.outputs[0].data, a.workspace);
  kernels::sum({.context = a.context,
                .attributes = a.attributes,
                .inputs = a.inputs.subspan(1),
                .outputs = a.outputs.subspan(1)});
}

// gelu_columns_backward
std::vector<TensorType> columns_shape(std::span<const TensorType> inputs,
                                      const Attributes& attributes) {
  require(inputs[0] == inputs[1], "h {} and dy {} differ", describe(inputs[0]),
          describe(inputs[1]));
  return {inputs[0], {dtype_attribute(attributes), {inputs[0].shape[-1]}}};
}
std::int64_t columns_workspace(const TensorType& h) {
  return gelu_columns_workspace(rows_of(h.shape), h.shape[-1], h.dtype);
}
std::vector<Value> expand_columns(std::span<const Value> inputs, const Attributes& attributes) {
  const Value dh = pull([](Value h) { return gelu(h); }, inputs[0], inputs[1]);
  return {dh, sum_as(as_matrix(dh), 1, dtype_attribute(attributes))};
}

// linear_gelu_backward
std::vector<TensorType> gelu_shape(std::span<const TensorType> inputs,
                                   const Attributes& attributes) {
  const TensorType &dy = inputs[0], &weight = inputs[1], &h = inputs[2];
  require_matrices(dy, weight);
  require(dy.shape[1] == weight.shape[1], "dy {} does not fit weight {}", describe(dy),
          describe(weight));
  require(h == TensorType{dy.dtype, {dy.shape[0], weight.shape[0]}},
          "h {} does not fit dy {} and weight {}", describe(h), describe(dy), describe(weight));
  return {h, {dtype_attribute(attributes), {h.shape[1]}}};
}
std::vector<Value> expand_gelu(std::span<const Value> inputs, const Attributes& attributes) {
  const std::array columns = {inputs[2], matmul(inputs[0], inputs[1], {.transpose_b = true})};
  return expand_columns(columns, attributes);
}
std::int64_t gelu_workspace(const OpShapes& shapes, const Backend& backend) {
  return std::max(GemmPlan(gelu_backward_gemm(shapes.inputs), backend).workspace_bytes(),
                  columns_workspace(shapes.inputs[2]));
}
std::shared_ptr<const void> gelu_prepare(const OpShapes& shapes, const Backend& backend) {
  return std::make_shared<const GemmPlan>(gelu_backward_gemm(shapes.inputs), backend);
}
Cost gelu_cost(const OpShapes& shapes) {
  return product_cost(shapes, gelu_backward_gemm(shapes.inputs));
}
void gelu_run(const KernelArguments& a) {
  static_cast<const GemmPlan*>(a.plan)->run(a.context, a.inputs[0].data, a.inputs[1].data, nullptr,
                                            a.outputs[0].data, a.workspace);
  const std::array columns = {a.inputs[2], a.outputs[0]};
  gelu_columns_backward({.context = a.context,
                         .attributes = a.attributes,
                         .inputs = columns,
                         .outputs = a.outputs,
                         .workspace = a.workspace});
}

}  // namespace

const OpDef kLinearWeightGradient{.name = "linear_weight_gradient",
                                  .shape = weight_shape,
                                  .expand = expand_weight,
                                  .workspace = weight_workspace,
                                  .cost = weight_cost,
                                  .prepare = weight_prepare,
                                  .run = weight_run};

const OpDef kGeluColumnsBackward{
    .name = "gelu_columns_backward",
    .shape = columns_shape,
    .expand = expand_columns,
    .may_reuse = {1, 0},
    .workspace = [](const OpShapes& shapes,
                    const Backend&) { return columns_workspace(shapes.inputs[0]); },
    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 30); },
    .run = gelu_columns_backward};

const OpDef kLinearGeluBackward{.name = "linear_gelu_backward",
                                .shape = gelu_shape,
                                .expand = expand_gelu,
                                .workspace = gelu_workspace,
                                .cost = gelu_cost,
                                .prepare = gelu_prepare,
                                .run = gelu_run};

}  // namespace ashlar
