#include "simulate/tiles.hpp"

#include <cmath>

namespace ashlar::simulate {
double filled(double rows, double columns, int multiprocessors) {
  if (multiprocessors == 0) return 1;
  constexpr double kTile = 128;
  const double tiles = std::ceil(rows / kTile) * std::ceil(columns / kTile);
  const double waves = std::ceil(tiles / multiprocessors);
  return rows * columns / (waves * multiprocessors * kTile * kTile);
}

double filled(const Program& program, const Step& step, int multiprocessors) {
  const Node& node = program.graph.nodes[static_cast<std::size_t>(step.node)];
  const auto of = [&](double rows, double columns) {
    return filled(rows, columns, multiprocessors);
  };
  if (!node.op->name.starts_with("linear_cross_entropy")) {
    const TensorType& result = program.graph[node.outputs[0]].type;
    const auto columns = static_cast<double>(result.shape[-1]);
    return of(static_cast<double>(result.elements()) / columns, columns);
  }
  const Shape& weight = program.graph[node.inputs[1]].type.shape;
  const auto words = static_cast<double>(weight[0]), width = static_cast<double>(weight[1]);
  const auto tokens = static_cast<double>(program.graph[node.inputs[2]].type.elements());
  double times = 1 / of(tokens, words), products = 1;
  for (const ValueId output : node.outputs) {
    const Shape& result = program.graph[output].type.shape;
    if (result.elements() <= 1) continue;  // the loss
    times += 1 / (result == weight ? of(words, width) : of(tokens, width));
    ++products;
  }
  return products / times;
}

}  // namespace ashlar::simulate
