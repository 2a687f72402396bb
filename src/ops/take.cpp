// Rows of any tensor by index: the embedding's look-up, and its gradient, on a table of flat rows.
#include "ops/check.hpp"

namespace ashlar {

Value take(Value x, Value indices, Where where) {
  const Shape shape = x.shape(), picked = indices.shape();
  require(shape.rank() >= 1 && shape[0] > 0, "{}:{}: take: {} has no rows to take",
          where.file_name(), where.line(), to_string(shape));
  std::vector<std::int64_t> extents(picked.begin(), picked.end());
  extents.insert(extents.end(), shape.begin() + 1, shape.end());
  const Value table = reshape(x, {shape[0], shape.elements() / shape[0]}, where);
  const Value rows = embedding(reshape(indices, {picked.elements()}, where), table, {}, where);
  return reshape(rows, Shape(extents), where);
}

}  // namespace ashlar
