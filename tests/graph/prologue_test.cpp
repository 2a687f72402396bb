// A program with a prologue: what it makes is read by every micro-batch and by the update.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "ashlar/buffer.hpp"
#include "ashlar/ops.hpp"
#include "graph/executor.hpp"
#include "runtime/thread_pool.hpp"
#include "sharding/collective_ops.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kWidth = 21;

/// y = tanh(s), z = 3 s and w = 2 s before the micro-batches; sum = sum_k x_k y + z; after them
/// out = sum w + tanh(z of the last instruction of the body).
Graph prologue_graph() {
  Tracer t;
  t.set_section(Section::prologue);
  const Value s = t.state("s", DType::f32, {kWidth}, Category::parameter);
  const Value y = tanh(s), z = scale(s, 3), w = scale(s, 2);
  t.set_section(Section::body);
  const Value x = t.input("x", DType::f32, {kWidth});
  const Value sum =
      accumulate(t.state("sum", DType::f32, {kWidth}, Category::gradient), add(multiply(x, y), z));
  const Value last = tanh(z);
  t.set_section(Section::update);
  t.output("out", add(multiply(sum, w), last));
  return std::move(t.graph());
}

float state(std::int64_t i) { return std::sin(static_cast<float>(i) + 1); }
float data(std::int64_t i, std::int64_t k) { return std::cos(static_cast<float>(i * 5 + k)); }

struct Rig {
  Rig() : world(self_communicator()), pool(1) {
    program = compile(prologue_graph(), {}, {}, states);
    for (std::size_t i = 0; i < kSpaces; ++i) {
      const std::int64_t bytes = i < 2 ? states.bytes(static_cast<Space>(i)) : program.heights[i];
      arenas[i] = Buffer(host_memory(), bytes, Category::activation);
      std::memset(arenas[i].data(), 0xff, static_cast<std::size_t>(bytes));
      bases[i] = arenas[i].data();
    }
    auto* values = reinterpret_cast<float*>(bases[0] + states.at("s").offset);
    for (std::int64_t i = 0; i < kWidth; ++i) values[i] = state(i);
    executor = std::make_unique<Executor>(program, bases, *world, pool);
    executor->poison = true;
  }

  std::vector<float> run(std::int64_t micro_batches) {
    RunContext context;
    context.micro_batches = micro_batches;
    executor->run(context, [&](std::int64_t k) {
      auto x = executor->input("x").span<float>();
      for (std::int64_t i = 0; i < kWidth; ++i) x[static_cast<std::size_t>(i)] = data(i, k);
    });
    const auto out = executor->output("out").span<float>();
    return {out.begin(), out.end()};
  }

  std::unique_ptr<Communicator> world;
  ThreadPool pool;
  StateLayout states;
  Program program;
  PerSpace<Buffer> arenas;
  PerSpace<std::byte*> bases{};
  std::unique_ptr<Executor> executor;
};

void check_values(const std::vector<float>& out, std::int64_t micro_batches) {
  for (std::int64_t i = 0; i < kWidth; ++i) {
    const double s = state(i);
    double sum = 0;
    for (std::int64_t k = 0; k < micro_batches; ++k) sum += data(i, k) * std::tanh(s) + 3 * s;
    CHECK(out[static_cast<std::size_t>(i)] ==
          doctest::Approx(sum * 2 * s + std::tanh(3 * s)).epsilon(1e-5));
  }
}

}  // namespace

TEST_CASE("prologue: its values live through every micro-batch, in the arena and apart") {
  for (const std::int64_t k : {1, 2, 3}) {
    CAPTURE(k);
    Rig rig;
    REQUIRE(rig.program.body_first > 0);
    for (int step = 0; step < 2; ++step) check_values(rig.run(k), k);

    Rig apart;
    StatisticsAdaptor statistics(host_memory());
    apart.executor->live().allocate_apart(&statistics);
    int mismatches = 0;
    apart.executor->on_load = [&](int step, const PerCategory<std::int64_t>&) {
      PerCategory<std::int64_t> predicted{};
      for (const auto& [buffer, offset] : apart.program.placed) {
        if (step >= buffer.first && step < buffer.last)
          predicted[static_cast<std::size_t>(buffer.category)] += buffer.bytes;
      }
      mismatches += statistics.live() != predicted;
    };
    for (int step = 0; step < 2; ++step) check_values(apart.run(k), k);
    CHECK(mismatches == 0);
    CHECK(apart.executor->live().peak_load() == rig.executor->live().peak_load());
    apart.executor.reset();
    CHECK(statistics.live() == PerCategory<std::int64_t>{});
  }
}

}  // namespace ashlar
