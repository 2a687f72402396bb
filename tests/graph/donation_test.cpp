// Buffers that die where another begins are handed on.
#include <doctest/doctest.h>

#include "ashlar/ops.hpp"
#include "graph/program.hpp"
#include "sharding/shard_pass.hpp"

namespace ashlar {

TEST_CASE("program: each of a chain of unary ops takes over the buffer of the one before") {
  constexpr std::int64_t kBytes = 512 * 4;
  for (const int length : {1, 2, 7}) {
    CAPTURE(length);
    Tracer t;
    const auto unit = t.unit("chain");
    Value x = t.input("x", DType::f32, {512});
    x = multiply(x, t.parameter({.name = "w", .shape = {512}}));
    for (int i = 0; i < length; ++i) x = i % 2 == 0 ? tanh(x) : scale(exp(x), 0.5);
    t.output("y", x);
    const Graph graph = t.graph();
    ShardOptions options;
    options.zero.stage = 0;
    StateLayout states;
    const FlatLayout layout(graph.parameters, graph.units, 1);
    const PeakBytes peak =
        planned_peak(compile(shard(graph, layout, options), {}, {}, states), states);
    CHECK(peak.peak[static_cast<std::size_t>(Category::activation)] == kBytes);
    CHECK(peak.peak[static_cast<std::size_t>(Category::workspace)] == 0);
    CHECK(peak.total == 3 * kBytes);  // the input, the parameter and the one buffer
  }
}

}  // namespace ashlar
