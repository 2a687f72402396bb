// Another order of the nodes: the same results in a lower load.
#include "graph/reorder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "ashlar/autodiff.hpp"
#include "ashlar/ops.hpp"
#include "graph/evaluate.hpp"
#include "graph/program.hpp"
#include "runtime/thread_pool.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kRows = 32;

std::int64_t largest_load(const Graph& graph) {
  StateLayout states;
  const Program program = compile(graph, {}, {}, states);
  const auto load = planned_peak(program, states).at_peak;
  return std::accumulate(load.begin(), load.end(), std::int64_t{0});
}

/// A wide intermediate per branch, narrow where the branches meet; all wide ones first.
Graph wide_branches(int branches) {
  Tracer t;
  const auto unit = t.unit("only");
  const Value x = t.input("x", DType::f64, {kRows, 64});
  std::vector<Value> wide;
  for (int b = 0; b < branches; ++b) wide.push_back(scale(x, b + 1));
  Value sum_of_all;
  for (const Value& value : wide) {
    const Value narrow = sum(tanh(value));
    sum_of_all = sum_of_all ? add(sum_of_all, narrow) : narrow;
  }
  t.output("y", sum_of_all);
  return t.graph();
}

/// Unary, binary and reducing ops on random values made so far, in three units, with backward.
Graph random_graph(std::mt19937& random) {
  Tracer t;
  const Value x = t.input("x", DType::f64, {kRows, 8});
  std::vector<Value> made{x};
  const auto any = [&] { return made[random() % made.size()]; };
  for (const char* name : {"first", "middle", "last"}) {
    const auto unit = t.unit(name);
    for (int i = 0; i < 6; ++i) {
      switch (random() % 4) {
        case 0:
          made.push_back(tanh(any()));
          break;
        case 1:
          made.push_back(add(any(), any()));
          break;
        case 2:
          made.push_back(multiply(any(), any()));
          break;
        default:
          made.push_back(scale(any(), 0.5));
          break;
      }
    }
  }
  Value loss = sum(made.back());
  for (int i = 0; i < 3; ++i) loss = add(loss, sum(any()));
  const Value seed = constant(t, 1, DType::f64, {});
  t.output("loss", loss);
  t.output("gradient", vjp(t, {&loss, 1}, {&seed, 1}, {&x, 1})[0]);
  return t.graph();
}

std::vector<double> results(const Graph& graph) {
  const ValueId input = graph.input("x");
  Buffer buffer(host_memory(), graph[input].type.bytes(), Category::input);
  const TensorView view = buffer.view(DType::f64, graph[input].type.shape);
  for (std::size_t i = 0; i < view.span<double>().size(); ++i)
    view.span<double>()[i] = 0.01 * static_cast<double>(i % 97) - 0.3;
  ThreadPool pool(1);
  RunContext context;
  context.pool = &pool;
  std::vector<double> values;
  for (const auto& [name, tensor] : evaluate(graph, {{"x", view}}, context)) {
    const auto span = tensor.second.span<double>();
    values.insert(values.end(), span.begin(), span.end());
  }
  return values;
}

std::vector<std::string> sorted_lines(const Graph& graph) {
  std::vector<std::string> lines;
  std::istringstream text(to_string(graph));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  std::ranges::sort(lines);
  return lines;
}

}  // namespace

TEST_CASE("reorder: wide branches run one after the other") {
  constexpr std::int64_t kWide = kRows * 64 * 8;
  const Graph graph = wide_branches(4);
  CHECK(largest_load(graph) >= 5 * kWide);
  const Graph ordered = reorder(graph, {});
  CHECK(largest_load(ordered) <= 3 * kWide);
  CHECK(results(ordered) == results(graph));
}

TEST_CASE("reorder: the same nodes with the same results, valid, in no higher a load") {
  std::mt19937 random(5);
  int lower = 0;
  for (int trial = 0; trial < 300; ++trial) {
    CAPTURE(trial);
    const Graph graph = random_graph(random);
    const Graph ordered = reorder(graph, {});
    CHECK(sorted_lines(ordered) == sorted_lines(graph));
    CHECK(results(ordered) == results(graph));
    const std::int64_t before = largest_load(graph), after = largest_load(ordered);
    CHECK(after <= before);
    lower += after < before ? 1 : 0;
  }
  CHECK(lower > 30);
}

}  // namespace ashlar
