// The row of batched matrix products.
#include <array>

#include "ops/expansion.hpp"
#include "ops/product/linear_rows.hpp"
#include "ops/product/rows.hpp"

namespace ashlar {
namespace {

bool flag(const Attributes& attributes, std::string_view name) {
  return attributes.integer(name) != 0;
}

}  // namespace

MatmulBatch matmul_batch(std::span<const TensorType> inputs, const Attributes& attributes) {
  const Shape &a = inputs[0].shape, &b = inputs[1].shape;
  const bool ta = flag(attributes, "transpose_a"), tb = flag(attributes, "transpose_b");
  MatmulBatch batch;
  batch.gemm = {.m = a[ta ? -1 : -2],
                .n = b[tb ? -2 : -1],
                .k = a[ta ? -2 : -1],
                .transpose_a = ta,
                .transpose_b = tb,
                .dtype = inputs[0].dtype,
                .result = dtype_attribute(attributes)};
  for (int axis = 0; axis + 2 < a.rank(); ++axis) batch.count *= a[axis];
  batch.shared_b = b.rank() == 2;
  if (batch.shared_b && !ta) {
    batch.gemm.m *= batch.count;
    batch.count = 1;
  }
  return batch;
}

namespace {

std::vector<TensorType> shape(std::span<const TensorType> inputs, const Attributes& attributes) {
  const TensorType &a = inputs[0], &b = inputs[1];
  require_float(a);
  require(a.dtype == b.dtype, "operands differ in type: {} and {}", describe(a), describe(b));
  require(a.shape.rank() >= 2 && b.shape.rank() >= 2, "takes matrices, not {} and {}", describe(a),
          describe(b));
  const bool ta = flag(attributes, "transpose_a"), tb = flag(attributes, "transpose_b");
  require(a.shape[ta ? -2 : -1] == b.shape[tb ? -1 : -2], "inner extents differ: {}{} and {}{}",
          describe(a), ta ? " transposed" : "", describe(b), tb ? " transposed" : "");
  bool leading = b.shape.rank() == 2 || b.shape.rank() == a.shape.rank();
  for (int axis = 0; leading && b.shape.rank() > 2 && axis + 2 < a.shape.rank(); ++axis)
    leading = a.shape[axis] == b.shape[axis];
  require(leading, "leading axes differ: {} and {}", describe(a), describe(b));
  TensorType result{dtype_attribute(attributes), a.shape};
  result.shape[-2] = a.shape[ta ? -1 : -2];
  result.shape[-1] = b.shape[tb ? -2 : -1];
  return {result};
}

/// da = dy op(b)^T, or its transpose for a transposed a.
Value gradient_a(const VjpArguments& v, bool ta, bool tb, DType dtype) {
  const Value b = v.inputs[1], dy = v.cotangents[0];
  if (!ta) return matmul(dy, b, {.transpose_b = !tb, .dtype = dtype});
  if (b.shape().rank() == dy.shape().rank())
    return matmul(b, dy, {.transpose_a = tb, .transpose_b = true, .dtype = dtype});
  return contiguous(transpose(matmul(dy, b, {.transpose_b = !tb, .dtype = dtype}), -2, -1));
}

/// db = op(a)^T dy, or its transpose for a transposed b; summed over axes that b lacks.
Value gradient_b(const VjpArguments& v, bool ta, bool tb, DType dtype) {
  Value a = v.inputs[0], dy = v.cotangents[0];
  const int lacking = a.shape().rank() - v.inputs[1].shape().rank();
  if (lacking > 0 && !ta) {
    a = as_matrix(a);
    dy = as_matrix(dy);
  }
  const bool summed = lacking > 0 && ta;
  const DType product = summed ? statistics_dtype(a.dtype()) : dtype;
  const Value db = tb ? matmul(dy, a, {.transpose_a = true, .transpose_b = ta, .dtype = product})
                      : matmul(a, dy, {.transpose_a = !ta, .dtype = product});
  return summed ? sum_as(db, (1U << lacking) - 1, dtype) : db;
}

std::vector<Value> matmul_vjp(const VjpArguments& v) {
  const bool ta = flag(v.attributes, "transpose_a"), tb = flag(v.attributes, "transpose_b");
  VjpArguments same = v;
  std::array<Value, 1> dy = {cast(v.cotangents[0], v.inputs[0].dtype())};
  same.cotangents = dy;
  return {v.needed[0] ? gradient_a(same, ta, tb, v.gradient_dtypes[0]) : Value(),
          v.needed[1] ? gradient_b(same, ta, tb, v.gradient_dtypes[1]) : Value()};
}

std::int64_t workspace(const OpShapes& shapes, const Backend& backend) {
  return GemmPlan(matmul_batch(shapes.inputs, shapes.attributes).gemm, backend).workspace_bytes();
}

std::shared_ptr<const void> prepare(const OpShapes& shapes, const Backend& backend) {
  return std::make_shared<const GemmPlan>(matmul_batch(shapes.inputs, shapes.attributes).gemm,
                                          backend);
}

Cost cost(const OpShapes& shapes) {
  return product_cost(shapes, matmul_batch(shapes.inputs, shapes.attributes).gemm);
}

void run(const KernelArguments& arguments) {
  const TensorView &a = arguments.inputs[0], &b = arguments.inputs[1], &c = arguments.outputs[0];
  const std::array<TensorType, 2> types = {TensorType{a.dtype, a.shape},
                                           TensorType{b.dtype, b.shape}};
  const MatmulBatch batch = matmul_batch(types, arguments.attributes);
  const Gemm& gemm = batch.gemm;
  const auto& plan = *static_cast<const GemmPlan*>(arguments.plan);
  for (std::int64_t i = 0; i < batch.count; ++i) {
    plan.run(arguments.context, a.data + i * gemm.m * gemm.k * size_of(a.dtype),
             b.data + (batch.shared_b ? 0 : i * gemm.k * gemm.n * size_of(b.dtype)), nullptr,
             c.data + i * gemm.m * gemm.n * size_of(c.dtype), arguments.workspace);
  }
}

}  // namespace

const OpDef kMatmul{.name = "matmul",
                    .shape = shape,
                    .vjp = matmul_vjp,
                    .jvp = multilinear_jvp,
                    .workspace = workspace,
                    .cost = cost,
                    .prepare = prepare,
                    .run = run};

Value matmul(Value a, Value b, MatmulOptions options, Where where) {
  const DType wanted = options.dtype == DType::u8 ? a.dtype() : options.dtype;
  const bool native = wanted == a.dtype() || (size_of(a.dtype()) == 2 && wanted == DType::f32);
  const DType product = native ? wanted : statistics_dtype(a.dtype());
  const Value c = a.tracer().apply1(kMatmul, {a, b},
                                    {{"transpose_a", std::int64_t{options.transpose_a}},
                                     {"transpose_b", std::int64_t{options.transpose_b}},
                                     {"dtype", static_cast<std::int64_t>(product)}},
                                    where);
  return cast(c, wanted, where);
}

}  // namespace ashlar
