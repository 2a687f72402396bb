// Rows of the fused language-model head: loss; gradients; both.
#include "ops/product/linear_cross_entropy.hpp"

#include <algorithm>

#include "ops/expansion.hpp"
#include "ops/product/linear_cross_entropy_rows.hpp"
#include "ops/product/rows.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kNone = -1;

TensorType loss_type(std::span<const TensorType> inputs) {
  const TensorType &x = inputs[0], &weight = inputs[1], &targets = inputs[2];
  require_float(x);
  require(x.dtype == weight.dtype, "x and weight differ in type: {} and {}", describe(x),
          describe(weight));
  require(x.shape.rank() >= 1 && weight.shape.rank() == 2 && x.shape[-1] == weight.shape[1],
          "x {} does not fit weight {}", describe(x), describe(weight));
  require(targets.dtype == DType::i32 && targets.elements() == rows_of(x.shape),
          "targets {} are not one i32 per row of x {}", describe(targets), describe(x));
  return {statistics_dtype(x.dtype), Shape{}};
}

bool wants_dx(const Attributes& attributes) {
  return attributes.has("dx") && attributes.integer("dx") != 0;
}
bool wants_dweight(const Attributes& attributes) {
  return attributes.has("dweight") && attributes.integer("dweight") != kNone;
}

}  // namespace

Head head_of(std::span<const TensorType> inputs, const Attributes& attributes) {
  const TensorType &x = inputs[0], &weight = inputs[1];
  Head head{.rows = rows_of(x.shape),
            .channels = weight.shape[1],
            .vocabulary = weight.shape[0],
            .dtype = x.dtype,
            .dx = wants_dx(attributes),
            .dweight = wants_dweight(attributes)};
  if (head.dweight) head.dweight_dtype = static_cast<DType>(attributes.integer("dweight"));
  return head;
}

namespace {

std::int64_t workspace(const OpShapes& shapes, const Backend& backend) {
  return HeadPlan(head_of(shapes.inputs, shapes.attributes), backend).workspace_bytes();
}
std::shared_ptr<const void> prepare(const OpShapes& shapes, const Backend& backend) {
  return std::make_shared<const HeadPlan>(head_of(shapes.inputs, shapes.attributes), backend);
}

Cost cost(const OpShapes& shapes) {
  const Head head = head_of(shapes.inputs, shapes.attributes);
  const double products = 1.0 + (head.dx ? 1 : 0) + (head.dweight ? 1 : 0);
  Cost result = memory_cost(shapes, 0);
  result.kind = Cost::Class::product;
  result.flops = 2 * products * static_cast<double>(head.rows) *
                 static_cast<double>(head.vocabulary) * static_cast<double>(head.channels);
  return result;
}

/// The gradients among the outputs, dx first; `first` is the index of the first one.
std::vector<TensorType> gradient_types(std::span<const TensorType> inputs,
                                       const Attributes& attributes) {
  std::vector<TensorType> types;
  if (wants_dx(attributes)) types.push_back(inputs[0]);
  if (wants_dweight(attributes))
    types.push_back({static_cast<DType>(attributes.integer("dweight")), inputs[1].shape});
  return types;
}

double dloss_of(const TensorView& dloss) {
  return dloss.dtype == DType::f64 ? *dloss.as<double>() : double{*dloss.as<float>()};
}

/// Runs the head; gradients go to outputs[first...].
double run_head(const KernelArguments& arguments, std::size_t first) {
  HeadOperands operands{.x = arguments.inputs[0].data,
                        .weight = arguments.inputs[1].data,
                        .targets = arguments.inputs[2].as<const std::int32_t>()};
  if (arguments.inputs.size() > 3) operands.dloss = dloss_of(arguments.inputs[3]);
  if (wants_dx(arguments.attributes)) operands.dx = arguments.outputs[first++].data;
  if (wants_dweight(arguments.attributes)) operands.dweight = arguments.outputs[first].data;
  return static_cast<const HeadPlan*>(arguments.plan)
      ->run(arguments.context, operands, arguments.workspace);
}

void write_loss(const TensorView& loss, double value) {
  if (loss.dtype == DType::f64) {
    *loss.as<double>() = value;
  } else {
    *loss.as<float>() = static_cast<float>(value);
  }
}

std::vector<TensorType> loss_shape(std::span<const TensorType> inputs, const Attributes&) {
  return {loss_type(inputs)};
}
void loss_run(const KernelArguments& arguments) {
  write_loss(arguments.outputs[0], run_head(arguments, 0));
}

std::vector<TensorType> gradient_shape(std::span<const TensorType> inputs,
                                       const Attributes& attributes) {
  require(inputs[3] == loss_type(inputs), "dloss {} is not of the loss's type",
          describe(inputs[3]));
  return gradient_types(inputs, attributes);
}
void gradient_run(const KernelArguments& arguments) { run_head(arguments, 0); }

std::vector<TensorType> both_shape(std::span<const TensorType> inputs,
                                   const Attributes& attributes) {
  std::vector<TensorType> types = gradient_shape(inputs, attributes);
  types.insert(types.begin(), loss_type(inputs));
  return types;
}
void both_run(const KernelArguments& arguments) {
  write_loss(arguments.outputs[0], run_head(arguments, 1));
}

/// Whole logits, which the row itself never has.
std::vector<Value> expand_gradient(std::span<const Value> inputs, const Attributes& attributes) {
  const Value x = as_matrix(wide(inputs[0])), weight = wide(inputs[1]);
  const Value targets = reshape(inputs[2], {x.shape()[0]});
  const Value logits = matmul(x, weight, {.transpose_b = true});
  const Value slope = multiply(cross_entropy_slope(logits, targets), inputs[3]);
  std::vector<Value> gradients;
  if (wants_dx(attributes)) {
    const Shape shape = inputs[0].shape();
    gradients.push_back(reshape(cast(matmul(slope, weight), inputs[0].dtype()), shape));
  }
  if (wants_dweight(attributes)) {
    const auto dtype = static_cast<DType>(attributes.integer("dweight"));
    gradients.push_back(cast(matmul(slope, x, {.transpose_a = true}), dtype));
  }
  return gradients;
}

std::vector<Value> loss_vjp(const VjpArguments& v) {
  std::vector<Value> gradients(3);
  if (!v.needed[0] && !v.needed[1]) return gradients;
  const Value x = v.inputs[0], weight = v.inputs[1];
  const DType sums = statistics_dtype(x.dtype());
  const DType dweight = v.gradient_dtypes[1] == x.dtype() ? x.dtype() : sums;
  const std::array inputs = {x, weight, v.inputs[2], v.cotangents[0]};
  const auto results =
      v.tracer.apply(kLinearCrossEntropyGradient, inputs,
                     {{"dx", std::int64_t{v.needed[0]}},
                      {"dweight", v.needed[1] ? static_cast<std::int64_t>(dweight) : kNone}});
  if (v.needed[0]) gradients[0] = cast(results.front(), v.gradient_dtypes[0]);
  if (v.needed[1]) gradients[1] = cast(results.back(), v.gradient_dtypes[1]);
  return gradients;
}

}  // namespace

const OpDef kLinearCrossEntropy{.name = "linear_cross_entropy",
                                .shape = loss_shape,
                                .vjp = loss_vjp,
                                .jvp = scalar_jvp,
                                .workspace = workspace,
                                .cost = cost,
                                .prepare = prepare,
                                .run = loss_run};
const OpDef kLinearCrossEntropyGradient{.name = "linear_cross_entropy_gradient",
                                        .shape = gradient_shape,
                                        .expand = expand_gradient,
                                        .workspace = workspace,
                                        .cost = cost,
                                        .prepare = prepare,
                                        .run = gradient_run};
const OpDef kLinearCrossEntropyWithGradient{
    .name = "linear_cross_entropy_with_gradient",
    .shape = both_shape,
    .not_differentiable = "a pass made it after differentiation",
    .workspace = workspace,
    .cost = cost,
    .prepare = prepare,
    .run = both_run};

Value linear_cross_entropy(Value x, Value weight, Value targets, Where where) {
  return x.tracer().apply1(kLinearCrossEntropy, {x, weight, targets}, {}, where);
}

}  // namespace ashlar
