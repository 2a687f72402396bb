// Rows of any tensor by index. Floating-point rows: the embedding's look-up and its gradient, on a
// table of flat rows. Integers: a copy.
#include <algorithm>

#include "ops/check.hpp"
#include "ops/parallel.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kRowsPerTask = 64;

std::vector<TensorType> integers_shape(std::span<const TensorType> inputs, const Attributes&) {
  const TensorType &table = inputs[0], &indices = inputs[1];
  require(table.dtype != DType::f16, "takes f32, bf16, f64 and integers, not f16");
  require(indices.dtype == DType::i32, "indices are {}, not i32", name_of(indices.dtype));
  return {{table.dtype, {indices.shape[0], table.shape[1]}}};
}

void run_integers(const KernelArguments& a) {
  const TensorView& table = a.inputs[0];
  const auto* indices = a.inputs[1].as<const std::int32_t>();
  const std::int64_t rows = table.shape[0], bytes = table.shape[1] * size_of(table.dtype);
  for_each_chunk(
      a.context, a.inputs[1].elements(), kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          require(0 <= indices[i] && indices[i] < rows,
                  "take: index {} at index {} is none of {} rows", indices[i], i, rows);
          std::copy_n(table.data + indices[i] * bytes, bytes, a.outputs[0].data + i * bytes);
        }
      });
}

const OpDef kIntegers{.name = "take_integers",  // table (N, C), indices (K) -> (K, C)
                      .shape = integers_shape,
                      .not_differentiable = "integers have no derivative",
                      .cost = [](const OpShapes& shapes) -> Cost {
                        const auto bytes = static_cast<double>(shapes.outputs[0].bytes());
                        return {.bytes_read = bytes + static_cast<double>(shapes.inputs[1].bytes()),
                                .bytes_written = bytes};
                      },
                      .run = run_integers};

}  // namespace

Value take(Value x, Value indices, Where where) {
  const Shape shape = x.shape(), picked = indices.shape();
  require(shape.rank() >= 1 && shape[0] > 0, "{}:{}: take: {} has no rows to take",
          where.file_name(), where.line(), to_string(shape));
  std::vector<std::int64_t> extents(picked.begin(), picked.end());
  extents.insert(extents.end(), shape.begin() + 1, shape.end());
  const Value table = reshape(x, {shape[0], shape.elements() / shape[0]}, where);
  const Value flat = reshape(indices, {picked.elements()}, where);
  const Value rows = is_float(x.dtype()) ? embedding(flat, table, {}, where)
                                         : x.tracer().apply1(kIntegers, {table, flat}, {}, where);
  return reshape(rows, Shape(extents), where);
}

}  // namespace ashlar
