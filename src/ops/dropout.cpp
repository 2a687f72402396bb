// Dropout. Linear in x, so its own vjp is the same row with the same key: no mask is stored.
#include "ops/check.hpp"
#include "ops/dropout_kernels.hpp"

namespace ashlar {
namespace {

std::vector<TensorType> dropout_shape(std::span<const TensorType> inputs,
                                      const Attributes& attributes) {
  const double probability = attributes.number("probability");
  require_float(inputs[0]);
  require(0 <= probability && probability < 1, "probability {} is not in [0, 1)", probability);
  require(inputs[0].shape.rank() >= 1, "a scalar has no sample axis");
  return {inputs[0]};
}

std::vector<Value> dropout_vjp(const VjpArguments& a);

const OpDef kDropout{.name = "dropout",
                     .shape = dropout_shape,
                     .vjp = dropout_vjp,
                     .jvp = linear_jvp,
                     .may_reuse = {0},
                     .cost = [](const OpShapes& shapes) { return memory_cost(shapes, 12); },
                     .run = kernels::dropout};

std::vector<Value> dropout_vjp(const VjpArguments& a) {
  const Value dx = a.tracer.apply1(kDropout, {a.cotangents[0]}, a.attributes);
  return {cast(dx, a.gradient_dtypes[0])};
}

}  // namespace

Value dropout(Value x, double probability, Where where) {
  if (probability == 0) return x;
  return x.tracer().apply1(kDropout, {x},
                           {{"probability", probability}, {"key", x.tracer().next_key()}}, where);
}

}  // namespace ashlar
