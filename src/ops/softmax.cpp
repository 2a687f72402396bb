// Rows of softmax and of cross-entropy on given logits.
#include "ops/expansion.hpp"
#include "ops/softmax_kernels.hpp"

namespace ashlar {
namespace {

std::vector<TensorType> softmax_shape(std::span<const TensorType> inputs, const Attributes&) {
  require_float(inputs[0]);
  require(inputs[0].shape.rank() >= 1 && inputs[0].shape[-1] > 0, "{} has no last axis",
          to_string(inputs[0].shape));
  return {inputs[0]};
}

/// y (dy - sum(y dy))
std::vector<Value> expand_softmax_backward(std::span<const Value> inputs, const Attributes&) {
  const Value y = wide(inputs[0]), dy = wide(inputs[1]);
  return {cast(multiply(y, subtract(dy, row_sums(multiply(y, dy)))), inputs[0].dtype())};
}

const OpDef kSoftmaxBackward{.name = "softmax_backward",  // y, dy
                             .shape = softmax_shape,
                             .expand = expand_softmax_backward,
                             .may_reuse = {1, 0},
                             .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 4); },
                             .run = kernels::softmax_backward};

std::vector<Value> softmax_vjp(const VjpArguments& a) {
  const Value dx = a.tracer.apply1(kSoftmaxBackward, {a.outputs[0], a.cotangents[0]});
  return {cast(dx, a.gradient_dtypes[0])};
}

const OpDef kSoftmax{.name = "softmax",
                     .shape = softmax_shape,
                     .vjp = softmax_vjp,
                     .jvp = symmetric_jvp,
                     .may_reuse = {0},
                     .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 20); },
                     .run = kernels::softmax};

std::vector<TensorType> cross_entropy_shape(std::span<const TensorType> inputs, const Attributes&) {
  const TensorType& logits = inputs[0];
  const TensorType& targets = inputs[1];
  require_float(logits);
  require(logits.shape.rank() >= 1 && logits.shape[-1] > 0, "{} has no vocabulary axis",
          to_string(logits.shape));
  const Shape rows(logits.shape.extents().first(static_cast<std::size_t>(logits.shape.rank() - 1)));
  require(targets == TensorType{DType::i32, rows}, "targets are {}, not {}", describe(targets),
          describe({DType::i32, rows}));
  const DType statistics = statistics_dtype(logits.dtype);
  return {{statistics, Shape()}, {statistics, rows}};
}

const OpDef kTargetWeights{
    .name = "target_weights",  // targets -> 1 / (targets that count) at each row's target, else 0
    .shape =
        [](std::span<const TensorType> inputs, const Attributes& attributes) {
          const Shape& rows = inputs[0].shape;
          std::vector<std::int64_t> extents(rows.begin(), rows.end());
          extents.push_back(attributes.integer("vocabulary"));
          return std::vector<TensorType>{{dtype_attribute(attributes), Shape(extents)}};
        },
    .not_differentiable = "targets are integers",
    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 0); },
    .run = kernels::target_weights};

/// The row sums are recomputed: lse is a residual.
std::vector<Value> expand_cross_entropy_backward(std::span<const Value> inputs, const Attributes&) {
  const Value slope = cross_entropy_slope(inputs[0], inputs[1]);
  return {cast(multiply(slope, inputs[3]), inputs[0].dtype())};
}

const OpDef kCrossEntropyBackward{
    .name = "cross_entropy_backward",  // logits, targets, lse, dloss
    .shape = [](std::span<const TensorType> inputs,
                const Attributes&) { return std::vector{inputs[0]}; },
    .expand = expand_cross_entropy_backward,
    .may_reuse = {0},
    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 18); },
    .run = kernels::cross_entropy_backward};

std::vector<Value> cross_entropy_vjp(const VjpArguments& a) {
  require(!a.cotangents[1], "cross_entropy: the row sums are residuals and not differentiable");
  const Value dlogits = a.tracer.apply1(kCrossEntropyBackward,
                                        {a.inputs[0], a.inputs[1], a.outputs[1], a.cotangents[0]});
  return {cast(dlogits, a.gradient_dtypes[0]), Value()};
}

const OpDef kCrossEntropy{.name = "cross_entropy",
                          .shape = cross_entropy_shape,
                          .vjp = cross_entropy_vjp,
                          .jvp = scalar_jvp,
                          .cost =
                              [](const OpShapes& shapes) {
                                Cost cost = memory_cost(shapes, 0);
                                cost.flops = 18 * static_cast<double>(shapes.inputs[0].elements());
                                return cost;
                              },
                          .run = kernels::cross_entropy};

}  // namespace

Value cross_entropy_slope(Value logits, Value targets) {
  const Value x = wide(logits);
  const Attributes attributes{{"vocabulary", x.shape()[-1]},
                              {"dtype", static_cast<std::int64_t>(x.dtype())}};
  const Value weights = x.tracer().apply1(kTargetWeights, {targets}, attributes);
  return subtract(multiply(softmax(x), row_sums(weights)), weights);
}

Value softmax(Value x, Where where) { return x.tracer().apply1(kSoftmax, {x}, {}, where); }

Value cross_entropy(Value logits, Value targets, Where where) {
  return logits.tracer().apply1(kCrossEntropy, {logits, targets}, {}, where);
}

}  // namespace ashlar
