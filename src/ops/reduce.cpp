// Sums over axes, in a fixed order.
#include "ops/reduce.hpp"

#include "ops/check.hpp"

namespace ashlar {
namespace {

bool reduces(std::int64_t axes, int axis) { return ((axes >> axis) & 1) != 0; }

std::vector<TensorType> sum_shape(std::span<const TensorType> inputs,
                                  const Attributes& attributes) {
  require_float(inputs[0]);
  const std::int64_t axes = attributes.integer("axes");
  require(axes >> inputs[0].shape.rank() == 0, "mask {:#x} names axes that {} does not have", axes,
          to_string(inputs[0].shape));
  std::vector<std::int64_t> kept;
  for (int axis = 0; axis < inputs[0].shape.rank(); ++axis) {
    if (!reduces(axes, axis)) kept.push_back(inputs[0].shape[axis]);
  }
  return {{dtype_attribute(attributes), Shape(kept)}};
}

/// Every element of x gets its sum's cotangent: a view.
std::vector<Value> sum_vjp(const VjpArguments& a) {
  const Shape shape = a.inputs[0].shape();  // a copy: the graph grows below
  Shape kept = shape;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (reduces(a.attributes.integer("axes"), axis)) kept[axis] = 1;
  }
  const Value g = cast(a.cotangents[0], a.gradient_dtypes[0]);
  return {broadcast_to(reshape(g, kept), shape)};
}

Cost sum_cost(const OpShapes& shapes) {
  Cost cost = memory_cost(shapes, 0);
  cost.flops = static_cast<double>(shapes.inputs[0].elements());
  return cost;
}

std::uint32_t all_axes(Value x) { return (1U << x.shape().rank()) - 1; }

}  // namespace

const OpDef kSum{.name = "sum",
                 .shape = sum_shape,
                 .vjp = sum_vjp,
                 .jvp = linear_jvp,
                 .cost = sum_cost,
                 .run = kernels::sum,
                 .strided_inputs = {0}};

Value sum_as(Value x, std::uint32_t axes, DType dtype, Where where) {
  if (axes == 0) return cast(x, dtype, where);
  return x.tracer().apply1(
      kSum, {x},
      {{"axes", static_cast<std::int64_t>(axes)}, {"dtype", static_cast<std::int64_t>(dtype)}},
      where);
}

Value sum(Value x, std::uint32_t axes, Where where) { return sum_as(x, axes, x.dtype(), where); }
Value sum(Value x, Where where) { return sum(x, all_axes(x), where); }

Value mean(Value x, Where where) {
  const Value total = sum_as(x, all_axes(x), statistics_dtype(x.dtype()), where);
  const auto count = static_cast<double>(x.type().elements());
  return cast(scale(total, 1 / count, where), x.dtype(), where);
}

}  // namespace ashlar
