// Steps compiled from random models, on one rank, to be read and mutated by tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/ops.hpp"
#include "base/math/philox.hpp"
#include "graph/executor.hpp"
#include "graph/rematerialize.hpp"
#include "runtime/thread_pool.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {

constexpr std::int64_t kRows = 3, kWidth = 19;

/// A random model of units with element-wise layers, views and values used more than once.
inline Value random_model(Tracer& t, std::uint64_t seed) {
  std::uint32_t draw = 0;
  const auto pick = [&](std::uint32_t n) { return philox(seed, 0, draw++)[0] % n; };
  std::vector<Value> pool{t.input("x", DType::f32, {kRows, kWidth})};
  const std::uint32_t layers = 2 + pick(5);
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    const auto unit = t.unit("unit." + std::to_string(layer));
    const Value w = t.parameter({"w" + std::to_string(layer),
                                 {kWidth},
                                 DType::f32,
                                 0,
                                 pick(5) != 0,
                                 true,
                                 {Initializer::Kind::normal, 0.5}});
    Value x = pool[pick(static_cast<std::uint32_t>(pool.size()))];
    x = multiply(add(x, w), pool.back());
    switch (pick(7)) {
      case 0:
        x = tanh(x);
        break;
      case 1:
        x = scale(reshape(transpose(reshape(x, {kWidth, kRows}), 0, 1), {kRows, kWidth}), 0.5);
        break;
      case 4:  // a value and a view of it
        x = subtract(x, slice(x, 0, 0, 1));
        break;
      case 5: {  // the cotangent that flows on is this parameter's gradient too
        const Value whole = t.parameter({"whole" + std::to_string(layer),
                                         {kRows, kWidth},
                                         DType::f32,
                                         0,
                                         true,
                                         true,
                                         {Initializer::Kind::normal, 0.5}});
        x = add(x, whole);
        break;
      }
      case 3:
        x = transpose(tanh(transpose(x, 0, 1)), 0, 1);
        break;
      case 2:
        x = add(tanh(x), scale(x, 0.1));
        break;
      default:
        x = multiply(x, w);
    }
    pool.push_back(x);
  }
  const auto unit = t.unit("end");
  const Value w =
      t.parameter({"end", {kWidth}, DType::f32, 0, true, true, {Initializer::Kind::normal, 0.5}});
  const Value y = multiply(pool.back(), w);
  return mean(multiply(y, y));
}

/// Backward makes some values again, none of them for every third seed.
inline Graph some_remade(const Graph& joint, std::uint64_t seed) {
  Remade remade(joint.values.size(), false);
  for (std::size_t id = 0; id < remade.size(); ++id) {
    remade[id] = seed % 3 != 0 && may_be_remade(joint, static_cast<ValueId>(id)) &&
                 philox(seed, 9, id)[0] % 3 == 0;
  }
  return rematerialize(joint, remade);
}

/// A compiled step with its memory, on a communicator of one rank.
struct Rig {
  Rig(std::uint64_t seed, const ShardOptions& sharding, const ScheduleOptions& order = {})
      : options(sharding),
        world(self_communicator()),
        pool(1),
        graph(some_remade(trace_training([&](Tracer& t) { return random_model(t, seed); }, options),
                          seed)),
        layout(graph.parameters, graph.units, 1),
        program(compile(shard(graph, layout, options), order, {}, states)) {}

  void bind() {
    for (std::size_t s = 0; s < kSpaces; ++s) {
      const std::int64_t bytes = s < 2 ? states.bytes(static_cast<Space>(s)) : program.heights[s];
      arenas[s] = Buffer(host_memory(), bytes, Category::activation);
      std::memset(arenas[s].data(), s < 2 ? 0 : 0xff, static_cast<std::size_t>(bytes));
      bases[s] = arenas[s].data();
    }
    for (const auto& [name, entry] : states.entries()) {
      if (entry.category != Category::parameter) continue;
      auto* values =
          reinterpret_cast<float*>(bases[static_cast<std::size_t>(entry.space)] + entry.offset);
      for (std::int64_t i = 0; i < entry.type.elements(); ++i)
        values[i] = std::sin(static_cast<float>(i + 3 * entry.offset));
    }
    executor = std::make_unique<Executor>(program, bases, *world, pool);
    executor->poison = true;
  }

  float run(std::int64_t micro_batches = 1) {
    RunContext context;
    context.micro_batches = micro_batches;
    context.learning_rate = 0.1;
    executor->run(context, [&](std::int64_t k) {
      auto x = executor->input("x").span<float>();
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = std::cos(static_cast<float>(i) + static_cast<float>(k));
    });
    return *executor->output("loss").as<float>();
  }

  double norm() const { return *executor->output("grad_norm").as<double>(); }

  ShardOptions options;
  std::unique_ptr<Communicator> world;
  ThreadPool pool;
  Graph graph;
  FlatLayout layout;
  StateLayout states;
  Program program;
  PerSpace<Buffer> arenas;
  PerSpace<std::byte*> bases{};
  std::unique_ptr<Executor> executor;
};

inline ShardOptions at_stage(int stage, std::int64_t micro_batches = 1, bool each = true) {
  ShardOptions options;
  options.zero.stage = stage;
  options.zero.bucket_bytes = 100;
  options.micro_batches = micro_batches;
  options.reduce_each = each;
  options.clip = 1;
  return options;
}

inline std::vector<std::byte> state_of(const Rig& rig) {
  std::vector<std::byte> bytes(rig.arenas[0].data(), rig.arenas[0].data() + rig.arenas[0].bytes());
  bytes.insert(bytes.end(), rig.arenas[1].data(), rig.arenas[1].data() + rig.arenas[1].bytes());
  return bytes;
}

inline bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace ashlar
