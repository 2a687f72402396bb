// Views: reshape, transpose, slice, broadcast. They run nothing; `contiguous` is the copy that
// Tracer::apply puts where a kernel or a view cannot follow strides.
#include "ops/check.hpp"
#include "ops/copy_kernels.hpp"
#include "ops/reduce.hpp"

namespace ashlar {
namespace {

Cost no_cost(const OpShapes&) { return {.kind = Cost::Class::none}; }
Cost copy_cost(const OpShapes& shapes) { return memory_cost(shapes, 0); }

std::vector<Value> gradient(const VjpArguments& a, Value value) {
  return {cast(value, a.gradient_dtypes[0])};
}

/// Strides of axes of one element do not matter: the usual ones, where that makes the view plain.
ViewLayout plain(ViewLayout layout, const Shape& shape) {
  if (TensorView(nullptr, DType::u8, shape, layout.strides).contiguous())
    layout.strides = contiguous_strides(shape);
  return layout;
}

std::vector<TensorType> same_shape(std::span<const TensorType> inputs, const Attributes&) {
  return {inputs[0]};
}
std::optional<ViewLayout> same_view(const TensorType&, const Shape& strides, const TensorType&,
                                    const Attributes&) {
  return ViewLayout{.strides = strides};
}
std::vector<Value> same_vjp(const VjpArguments& a) { return gradient(a, a.cotangents[0]); }

// alias
const OpDef kAlias{.name = "alias",
                   .shape = same_shape,
                   .vjp = same_vjp,
                   .jvp = linear_jvp,
                   .view = same_view,
                   .cost = no_cost};

// stop_gradient
const OpDef kStopGradient{.name = "stop_gradient",
                          .shape = same_shape,
                          .stops_derivatives = true,
                          .view = same_view,
                          .cost = no_cost};

// contiguous
const OpDef kContiguous{.name = "contiguous",
                        .shape = same_shape,
                        .vjp = same_vjp,
                        .jvp = linear_jvp,
                        .cost = copy_cost,
                        .run = kernels::copy,
                        .strided_inputs = {0}};

// reshape
std::vector<TensorType> reshape_shape(std::span<const TensorType> inputs,
                                      const Attributes& attributes) {
  const Shape& shape = attributes.shape("shape");
  require(shape.elements() == inputs[0].elements(), "{} has {} elements, {} has {}",
          to_string(inputs[0].shape), inputs[0].elements(), to_string(shape), shape.elements());
  return {{inputs[0].dtype, shape}};
}
std::vector<Value> reshape_vjp(const VjpArguments& a) {
  return gradient(a, reshape(a.cotangents[0], a.inputs[0].shape()));
}

/// Each group of old axes that lies regularly may be cut into new axes: walks both shapes from the
/// back, consuming equal products.
std::optional<ViewLayout> reshape_view(const TensorType& input, const Shape& strides,
                                       const TensorType& output, const Attributes&) {
  ViewLayout layout{.strides = contiguous_strides(output.shape)};
  if (output.elements() == 0) return layout;
  if (TensorView(nullptr, DType::u8, input.shape, strides).contiguous()) return layout;
  int from = input.shape.rank() - 1;
  std::int64_t available = 1;  // elements of the current run of old axes that are not yet used
  std::int64_t step = 1;       // stride at which the next new axis continues
  for (int to = output.shape.rank() - 1; to >= 0; --to) {
    if (output.shape[to] == 1) continue;
    std::int64_t wanted = output.shape[to];
    std::int64_t axis_step = 0;
    while (wanted > 1) {
      if (available == 1) {
        while (from >= 0 && input.shape[from] == 1) --from;
        if (axis_step != 0 && strides[from] != step) return std::nullopt;
        available = input.shape[from];
        step = strides[from];
        --from;
      }
      if (axis_step == 0) axis_step = step;
      const std::int64_t part = wanted <= available ? wanted : available;
      if (wanted % part != 0 || available % part != 0) return std::nullopt;
      wanted /= part;
      available /= part;
      step *= part;
    }
    layout.strides[to] = axis_step;
  }
  return layout;
}
const OpDef kReshape{.name = "reshape",
                     .shape = reshape_shape,
                     .vjp = reshape_vjp,
                     .jvp = linear_jvp,
                     .view = reshape_view,
                     .cost = no_cost};

// transpose
std::vector<TensorType> transpose_shape(std::span<const TensorType> inputs,
                                        const Attributes& attributes) {
  TensorType result = inputs[0];
  const auto a = static_cast<int>(attributes.integer("a"));
  const auto b = static_cast<int>(attributes.integer("b"));
  std::swap(result.shape[a], result.shape[b]);
  return {result};
}
std::vector<Value> transpose_vjp(const VjpArguments& a) {
  return gradient(a, transpose(a.cotangents[0], static_cast<int>(a.attributes.integer("a")),
                               static_cast<int>(a.attributes.integer("b"))));
}
std::optional<ViewLayout> transpose_view(const TensorType&, const Shape& strides,
                                         const TensorType& output, const Attributes& attributes) {
  ViewLayout layout{.strides = strides};
  std::swap(layout.strides[static_cast<int>(attributes.integer("a"))],
            layout.strides[static_cast<int>(attributes.integer("b"))]);
  return plain(layout, output.shape);
}
const OpDef kTranspose{.name = "transpose",
                       .shape = transpose_shape,
                       .vjp = transpose_vjp,
                       .jvp = linear_jvp,
                       .view = transpose_view,
                       .cost = no_cost};

// slice, and pad for its cotangent
std::vector<TensorType> pad_shape(std::span<const TensorType> inputs,
                                  const Attributes& attributes) {
  return {{inputs[0].dtype, attributes.shape("shape")}};
}
std::vector<Value> pad_vjp(const VjpArguments& a) {
  const auto axis = static_cast<int>(a.attributes.integer("axis"));
  const std::int64_t begin = a.attributes.integer("begin");
  return gradient(a, slice(a.cotangents[0], axis, begin, begin + a.inputs[0].shape()[axis]));
}
const OpDef kPad{.name = "pad",
                 .shape = pad_shape,
                 .vjp = pad_vjp,
                 .jvp = linear_jvp,
                 .cost = copy_cost,
                 .run = kernels::pad,
                 .strided_inputs = {0}};

std::vector<TensorType> slice_shape(std::span<const TensorType> inputs,
                                    const Attributes& attributes) {
  const auto axis = static_cast<int>(attributes.integer("axis"));
  const std::int64_t begin = attributes.integer("begin"), end = attributes.integer("end");
  TensorType result = inputs[0];
  require(0 <= begin && begin <= end && end <= result.shape[axis],
          "[{}, {}) does not lie in axis {} of {}", begin, end, axis, to_string(result.shape));
  result.shape[axis] = end - begin;
  return {result};
}
std::vector<Value> slice_vjp(const VjpArguments& a) {
  const Value g = cast(a.cotangents[0], a.gradient_dtypes[0]);
  return {a.tracer.apply1(kPad, {g},
                          {{"axis", a.attributes.integer("axis")},
                           {"begin", a.attributes.integer("begin")},
                           {"shape", a.inputs[0].shape()}})};
}
std::optional<ViewLayout> slice_view(const TensorType&, const Shape& strides,
                                     const TensorType& output, const Attributes& attributes) {
  const auto axis = static_cast<int>(attributes.integer("axis"));
  return plain({.offset = attributes.integer("begin") * strides[axis], .strides = strides},
               output.shape);
}
const OpDef kSlice{.name = "slice",
                   .shape = slice_shape,
                   .vjp = slice_vjp,
                   .jvp = linear_jvp,
                   .view = slice_view,
                   .cost = no_cost};

// broadcast_to
std::vector<TensorType> broadcast_shape(std::span<const TensorType> inputs,
                                        const Attributes& attributes) {
  const Shape& from = inputs[0].shape;
  const Shape& to = attributes.shape("shape");
  bool fits = from.rank() <= to.rank();
  for (int axis = 1; fits && axis <= from.rank(); ++axis)
    fits = from[-axis] == to[-axis] || from[-axis] == 1;
  require(fits, "{} does not broadcast to {}", to_string(from), to_string(to));
  return {{inputs[0].dtype, to}};
}
std::vector<Value> broadcast_vjp(const VjpArguments& a) {
  const Shape from = a.inputs[0].shape();
  const Shape to = a.outputs[0].shape();
  const int added = to.rank() - from.rank();
  std::uint32_t axes = 0;
  for (int axis = 0; axis < to.rank(); ++axis) {
    if (axis < added || from[axis - added] != to[axis]) axes |= 1U << axis;
  }
  return {reshape(sum_as(a.cotangents[0], axes, a.gradient_dtypes[0]), from)};
}
std::optional<ViewLayout> broadcast_view(const TensorType& input, const Shape& strides,
                                         const TensorType& output, const Attributes&) {
  ViewLayout layout{.strides = output.shape};
  const int added = output.shape.rank() - input.shape.rank();
  for (int axis = 0; axis < output.shape.rank(); ++axis) {
    const bool repeats = axis < added || input.shape[axis - added] != output.shape[axis];
    layout.strides[axis] = repeats ? 0 : strides[axis - added];
  }
  return plain(layout, output.shape);
}
const OpDef kBroadcast{.name = "broadcast_to",
                       .shape = broadcast_shape,
                       .vjp = broadcast_vjp,
                       .jvp = linear_jvp,
                       .view = broadcast_view,
                       .cost = no_cost};

int checked_axis(const Shape& shape, int axis, std::string_view op, Where where) {
  require(-shape.rank() <= axis && axis < shape.rank(), "{}:{}: {}: {} has no axis {}",
          where.file_name(), where.line(), op, to_string(shape), axis);
  return axis < 0 ? axis + shape.rank() : axis;
}

}  // namespace

Value reshape(Value x, const Shape& shape, Where where) {
  if (x.shape() == shape) return x;
  return x.tracer().apply1(kReshape, {x}, {{"shape", shape}}, where);
}

Value transpose(Value x, int axis_a, int axis_b, Where where) {
  const std::int64_t a = checked_axis(x.shape(), axis_a, "transpose", where);
  const std::int64_t b = checked_axis(x.shape(), axis_b, "transpose", where);
  if (a == b) return x;
  return x.tracer().apply1(kTranspose, {x}, {{"a", a}, {"b", b}}, where);
}

Value slice(Value x, int axis, std::int64_t begin, std::int64_t end, Where where) {
  const std::int64_t a = checked_axis(x.shape(), axis, "slice", where);
  if (begin == 0 && end == x.shape()[static_cast<int>(a)]) return x;
  return x.tracer().apply1(kSlice, {x}, {{"axis", a}, {"begin", begin}, {"end", end}}, where);
}

Value broadcast_to(Value x, const Shape& shape, Where where) {
  if (x.shape() == shape) return x;
  return x.tracer().apply1(kBroadcast, {x}, {{"shape", shape}}, where);
}

Value contiguous(Value x, Where where) {
  if (x.contiguous()) return x;
  return x.tracer().apply1(kContiguous, {x}, {}, where);
}

Value alias(Value x, Where where) { return x.tracer().apply1(kAlias, {x}, {}, where); }

Value stop_gradient(Value x, Where where) {
  return x.tracer().apply1(kStopGradient, {x}, {}, where);
}

}  // namespace ashlar
