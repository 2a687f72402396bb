// Rows of pooling, channels last. Which element was the largest is kept as a byte per result; given
// those, max pooling and its gradient are linear, and each is the other's gradient. So are average
// pooling and its gradient.
#include "ops/check.hpp"
#include "ops/pool_kernels.hpp"

namespace ashlar {
namespace {

std::int64_t result_extent(std::int64_t extent, const Attributes& attributes) {
  const std::int64_t kernel = attributes.integer("kernel"), stride = attributes.integer("stride");
  require(kernel >= 1 && stride >= 1, "kernel {} and stride {}: both are at least 1", kernel,
          stride);
  require(kernel <= extent, "a window of {} does not fit {}", kernel, extent);
  return (extent - kernel) / stride + 1;
}

Shape result_shape(const TensorType& x, const Attributes& attributes) {
  require_float(x);
  require(x.shape.rank() == 4, "takes images [N, H, W, C], not {}", describe(x));
  return {x.shape[0], result_extent(x.shape[1], attributes), result_extent(x.shape[2], attributes),
          x.shape[3]};
}

/// Of a gradient: what was pooled.
TensorType pooled_from(const TensorType& dy, const Attributes& attributes) {
  require(dy.shape.rank() == 4, "takes images [N, H, W, C], not {}", describe(dy));
  const TensorType x{
      dy.dtype,
      {dy.shape[0], attributes.integer("height"), attributes.integer("width"), dy.shape[3]}};
  require(result_shape(x, attributes) == dy.shape, "{} is no result of {}", describe(dy),
          describe(x));
  return x;
}

void require_which(const TensorType& which, const Shape& y) {
  require(which == TensorType{DType::u8, y}, "the choice is {}, not u8{}", describe(which),
          to_string(y));
}

/// `attributes`, knowing how large x was.
Attributes with_extents(Attributes attributes, Value x) {
  attributes.set("height", x.shape()[1]);
  attributes.set("width", x.shape()[2]);
  return attributes;
}

Cost cost(const OpShapes& shapes) {
  const std::int64_t kernel = shapes.attributes.integer("kernel");
  return memory_cost(shapes, static_cast<double>(kernel * kernel));
}
Cost spread_cost(const OpShapes& shapes) { return memory_cost(shapes, 1); }

extern const OpDef kSpread;

// max_pool2d_pick
const OpDef kPick{.name = "max_pool2d_pick",  // x, which -> y
                  .shape =
                      [](std::span<const TensorType> inputs, const Attributes& attributes) {
                        const Shape y = result_shape(inputs[0], attributes);
                        require_which(inputs[1], y);
                        return std::vector<TensorType>{{inputs[0].dtype, y}};
                      },
                  .vjp =
                      [](const VjpArguments& a) {
                        const Value dx = a.tracer.apply1(kSpread, {a.cotangents[0], a.inputs[1]},
                                                         with_extents(a.attributes, a.inputs[0]));
                        return std::vector{cast(dx, a.gradient_dtypes[0]), Value()};
                      },
                  .jvp = linear_jvp,
                  .cost = spread_cost,
                  .run = kernels::max_pool2d_pick};

// max_pool2d_spread
const OpDef kSpread{
    .name = "max_pool2d_spread",  // dy, which -> dx
    .shape =
        [](std::span<const TensorType> inputs, const Attributes& attributes) {
          const TensorType x = pooled_from(inputs[0], attributes);
          require_which(inputs[1], inputs[0].shape);
          return std::vector{x};
        },
    .vjp =
        [](const VjpArguments& a) {
          const Value dy = a.tracer.apply1(kPick, {a.cotangents[0], a.inputs[1]}, a.attributes);
          return std::vector{cast(dy, a.gradient_dtypes[0]), Value()};
        },
    .jvp = linear_jvp,
    .cost = spread_cost,
    .run = kernels::max_pool2d_spread};

// max_pool2d
const OpDef kMaxPool{
    .name = "max_pool2d",  // x -> y, which
    .shape =
        [](std::span<const TensorType> inputs, const Attributes& attributes) {
          const Shape y = result_shape(inputs[0], attributes);
          require(attributes.integer("kernel") <= 16, "kernel {}: at most 16",
                  attributes.integer("kernel"));
          return std::vector<TensorType>{{inputs[0].dtype, y}, {DType::u8, y}};
        },
    .vjp =
        [](const VjpArguments& a) {
          const Value dx = a.tracer.apply1(kSpread, {a.cotangents[0], a.outputs[1]},
                                           with_extents(a.attributes, a.inputs[0]));
          return std::vector{cast(dx, a.gradient_dtypes[0])};
        },
    .jvp =
        [](const JvpArguments& a) {
          return std::vector{a.tracer.apply1(kPick, {a.tangents[0], a.outputs[1]}, a.attributes),
                             Value()};
        },
    .cost = cost,
    .run = kernels::max_pool2d};

// average_pool2d
extern const OpDef kAverageSpread;
const OpDef kAverage{
    .name = "average_pool2d",
    .shape =
        [](std::span<const TensorType> inputs, const Attributes& attributes) {
          return std::vector<TensorType>{{inputs[0].dtype, result_shape(inputs[0], attributes)}};
        },
    .vjp =
        [](const VjpArguments& a) {
          const Value dx = a.tracer.apply1(kAverageSpread, {a.cotangents[0]},
                                           with_extents(a.attributes, a.inputs[0]));
          return std::vector{cast(dx, a.gradient_dtypes[0])};
        },
    .jvp = linear_jvp,
    .cost = cost,
    .run = kernels::average_pool2d};

const OpDef kAverageSpread{
    .name = "average_pool2d_spread",  // dy -> dx
    .shape =
        [](std::span<const TensorType> inputs, const Attributes& attributes) {
          return std::vector{pooled_from(inputs[0], attributes)};
        },
    .vjp =
        [](const VjpArguments& a) {
          const Value dy = a.tracer.apply1(kAverage, {a.cotangents[0]}, a.attributes);
          return std::vector{cast(dy, a.gradient_dtypes[0])};
        },
    .jvp = linear_jvp,
    .cost = spread_cost,
    .run = kernels::average_pool2d_spread};

Attributes attributes_of(std::int64_t kernel, std::int64_t stride) {
  return {{"kernel", kernel}, {"stride", stride == 0 ? kernel : stride}};
}

}  // namespace

Value max_pool2d(Value x, std::int64_t kernel, std::int64_t stride, Where where) {
  return x.tracer().apply1(kMaxPool, {x}, attributes_of(kernel, stride), where);
}

Value average_pool2d(Value x, std::int64_t kernel, std::int64_t stride, Where where) {
  return x.tracer().apply1(kAverage, {x}, attributes_of(kernel, stride), where);
}

}  // namespace ashlar
