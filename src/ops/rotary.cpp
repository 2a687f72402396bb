// The row of rotary position embedding (Su et al., arXiv:2104.09864, section 3.2.2): each pair of
// channels is turned by an angle that grows with the position. The transpose of a rotation is the
// rotation back, so backward is the row itself.
#include "ops/check.hpp"
#include "ops/rotary_kernels.hpp"

namespace ashlar {
namespace {

std::vector<TensorType> rotary_shape(std::span<const TensorType> inputs,
                                     const Attributes& attributes) {
  const TensorType &x = inputs[0], &positions = inputs[1];
  const std::int64_t heads = attributes.integer("heads");
  require_float(x);
  require(x.shape.rank() == 3, "wants (B, T, heads x D), not {}", to_string(x.shape));
  require(heads > 0 && x.shape[2] % (2 * heads) == 0,
          "{} channels do not divide into {} heads of an even size", x.shape[2], heads);
  require(attributes.number("base") > 0, "the base {} is not positive", attributes.number("base"));
  const TensorType expected{DType::i32, {x.shape[0], x.shape[1]}};
  require(attributes.integer("positions") == 0 || positions == expected, "positions are {}, not {}",
          describe(positions), describe(expected));
  return {x};
}

std::vector<Value> rotary_vjp(const VjpArguments& a);

const OpDef kRotary{.name = "rotary",
                    .shape = rotary_shape,
                    .vjp = rotary_vjp,
                    .jvp = linear_jvp,
                    .may_reuse = {0},
                    .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 3); },
                    .run = kernels::rotary};

std::vector<Value> rotary_vjp(const VjpArguments& a) {
  Attributes attributes = a.attributes;
  attributes.set("direction", -attributes.integer("direction"));
  const Value dx = a.tracer.apply1(kRotary, {a.cotangents[0], a.inputs[1]}, attributes);
  return {cast(dx, a.gradient_dtypes[0]), Value()};
}

}  // namespace

Value rotary(Value x, int heads, RotaryOptions options, Where where) {
  return x.tracer().apply1(kRotary, {x, options.positions},
                           {{"heads", std::int64_t{heads}},
                            {"base", options.base},
                            {"offset", options.offset},
                            {"positions", std::int64_t{options.positions ? 1 : 0}},
                            {"direction", std::int64_t{1}}},
                           where);
}

}  // namespace ashlar
