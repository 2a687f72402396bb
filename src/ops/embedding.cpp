// Rows of table look-up.
#include "ops/check.hpp"
#include "ops/embedding_kernels.hpp"

namespace ashlar {
namespace {

bool has_positions(const Attributes& attributes) { return attributes.integer("positions") != 0; }

std::vector<TensorType> embedding_shape(std::span<const TensorType> inputs,
                                        const Attributes& attributes) {
  const TensorType& tokens = inputs[0];
  const TensorType& table = inputs[1];
  const TensorType& places = inputs[2];
  require(tokens.dtype == DType::i32, "tokens are {}, not i32", name_of(tokens.dtype));
  require_float(table);
  require(
      tokens.shape.rank() >= 1 && tokens.shape.rank() < Shape::kMaxRank && table.shape.rank() == 2,
      "wants tokens (..., T) and a table (V, C), not {} and {}", to_string(tokens.shape),
      to_string(table.shape));
  if (has_positions(attributes))
    require(places.dtype == table.dtype && places.shape.rank() == 2 &&
                places.shape[1] == table.shape[1] && places.shape[0] >= tokens.shape[-1],
            "the position table {} does not serve {} positions of {}", describe(places),
            tokens.shape[-1], describe(table));
  std::vector<std::int64_t> extents(tokens.shape.begin(), tokens.shape.end());
  extents.push_back(table.shape[1]);
  return {{table.dtype, Shape(extents)}};
}

std::vector<TensorType> gradient_shape(std::span<const TensorType>, const Attributes& attributes) {
  return {{dtype_attribute(attributes), attributes.shape("table")}};
}

Cost gradient_cost(const OpShapes& shapes) {
  Cost cost = memory_cost(shapes, 0);
  cost.flops = static_cast<double>(shapes.inputs.back().elements());
  return cost;
}

/// The gradients are linear in dy: their transposes look rows up again.
std::vector<Value> tokens_vjp(const VjpArguments& a) {
  return {Value(), cast(embedding(a.inputs[0], a.cotangents[0], {}), a.gradient_dtypes[1])};
}
std::vector<Value> positions_vjp(const VjpArguments& a) {
  const Shape shape = a.inputs[0].shape();
  const Value rows = slice(a.cotangents[0], 0, 0, shape[-2]);
  return {cast(broadcast_to(rows, shape), a.gradient_dtypes[0])};
}

const OpDef kTokens{.name = "embedding_tokens",  // tokens, dy
                    .shape = gradient_shape,
                    .vjp = tokens_vjp,
                    .jvp = linear_jvp,
                    .workspace =
                        [](const OpShapes& shapes, const Backend&) {
                          return kernels::embedding_tokens_workspace(shapes.inputs[0].elements());
                        },
                    .cost = gradient_cost,
                    .run = kernels::embedding_tokens};

const OpDef kPositions{.name = "embedding_positions",  // dy
                       .shape = gradient_shape,
                       .vjp = positions_vjp,
                       .jvp = linear_jvp,
                       .cost = gradient_cost,
                       .run = kernels::embedding_positions};

std::vector<Value> embedding_vjp(const VjpArguments& a) {
  std::vector<Value> gradients(3);
  const auto attributes = [&](std::size_t table) {
    return Attributes{{"dtype", static_cast<std::int64_t>(a.gradient_dtypes[table])},
                      {"table", a.inputs[table].shape()}};
  };
  if (a.needed[1])
    gradients[1] = a.tracer.apply1(kTokens, {a.inputs[0], a.cotangents[0]}, attributes(1));
  if (a.needed[2]) gradients[2] = a.tracer.apply1(kPositions, {a.cotangents[0]}, attributes(2));
  return gradients;
}

/// Rows that are looked up, not the whole tables.
Cost embedding_cost(const OpShapes& shapes) {
  const auto rows = static_cast<double>(shapes.outputs[0].bytes());
  const bool places = has_positions(shapes.attributes);
  return {.flops = places ? static_cast<double>(shapes.outputs[0].elements()) : 0,
          .bytes_read = (places ? 2 : 1) * rows + static_cast<double>(shapes.inputs[0].bytes()),
          .bytes_written = rows};
}

const OpDef kEmbedding{.name = "embedding",
                       .shape = embedding_shape,
                       .vjp = embedding_vjp,
                       .jvp = linear_jvp,
                       .cost = embedding_cost,
                       .run = kernels::embedding};

}  // namespace

Value embedding(Value tokens, Value token_table, Value position_table, Where where) {
  return tokens.tracer().apply1(kEmbedding, {tokens, token_table, position_table},
                                {{"positions", std::int64_t{position_table ? 1 : 0}}}, where);
}

}  // namespace ashlar
