// Programs against independent readers of the same graph, and mutations that must not go unnoticed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ashlar/autodiff.hpp"
#include "ashlar/buffer.hpp"
#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"
#include "base/math/philox.hpp"
#include "graph/early_end.hpp"
#include "graph/evaluate.hpp"
#include "graph/executor.hpp"
#include "graph/rematerialize.hpp"
#include "runtime/thread_pool.hpp"
#include "sharding/train_step_parts.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kRows = 3, kWidth = 19;

/// A random model of units with element-wise layers, views and values used more than once.
Value random_model(Tracer& t, std::uint64_t seed) {
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
Graph some_remade(const Graph& joint, std::uint64_t seed) {
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

ShardOptions at_stage(int stage, std::int64_t micro_batches = 1, bool each = true) {
  ShardOptions options;
  options.zero.stage = stage;
  options.zero.bucket_bytes = 100;
  options.micro_batches = micro_batches;
  options.reduce_each = each;
  options.clip = 1;
  return options;
}

std::vector<std::byte> state_of(const Rig& rig) {
  std::vector<std::byte> bytes(rig.arenas[0].data(), rig.arenas[0].data() + rig.arenas[0].bytes());
  bytes.insert(bytes.end(), rig.arenas[1].data(), rig.arenas[1].data() + rig.arenas[1].bytes());
  return bytes;
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

TEST_CASE("program: the load that plans predict is what allocating every buffer apart measures") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    for (const auto& [stage, k, each] :
         {std::tuple{0, 1, true}, {1, 2, false}, {2, 2, true}, {3, 1, true}, {3, 3, false}}) {
      CAPTURE(seed);
      CAPTURE(stage);
      Rig rig(seed, at_stage(stage, k, each));
      rig.bind();
      const float expected = rig.run(k);
      CHECK(std::isfinite(expected));

      Rig apart(seed, at_stage(stage, k, each));
      apart.bind();
      StatisticsAdaptor statistics(host_memory());
      int mismatches = 0;
      {
        apart.executor->live().allocate_apart(&statistics);
        apart.executor->on_load = [&](int step, const PerCategory<std::int64_t>&) {
          PerCategory<std::int64_t> predicted{};
          for (const auto& [buffer, offset] : apart.program.placed) {
            if (step >= buffer.first && step < buffer.last)
              predicted[static_cast<std::size_t>(buffer.category)] += buffer.bytes;
          }
          if (statistics.live() != predicted) ++mismatches;
        };
        CHECK(same_bits(apart.run(k), expected));
        CHECK(mismatches == 0);
        CHECK(apart.executor->live().peak_load() == statistics.peak_total());
        apart.executor.reset();
      }
      CHECK(statistics.live() == PerCategory<std::int64_t>{});
      CHECK(state_of(apart) == state_of(rig));
      const PeakBytes planned = planned_peak(rig.program, rig.states);
      for (std::size_t c = 0; c < kCategories; ++c) {
        CHECK(planned.peak[c] == rig.executor->live().peak()[c] + rig.states.by_category()[c]);
      }
    }
  }
}

TEST_CASE("program: the highest byte touched lies in the last planned buffer") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Rig rig(seed, at_stage(3));
    rig.bind();
    rig.executor->poison = false;
    for (const std::size_t space : {2UL, 3UL}) {
      std::memset(rig.bases[space], 0x5b, static_cast<std::size_t>(rig.program.heights[space]));
    }
    rig.run();
    for (const std::size_t space : {2UL, 3UL}) {
      std::int64_t top = rig.program.heights[space] - 1;
      while (top >= 0 && rig.bases[space][top] == std::byte{0x5b}) --top;
      std::int64_t last_begin = 0, last_end = 0;
      for (const auto& [buffer, offset] : rig.program.placed) {
        if (buffer.window != (space == 3) || buffer.last <= buffer.first ||
            offset + buffer.bytes <= last_end)
          continue;
        last_begin = offset;
        last_end = offset + buffer.bytes;
      }
      if (last_end == 0) continue;
      CHECK(top >= last_begin);
      CHECK(top < last_end);
    }
  }
}

TEST_CASE("program: a step in the arena equals the plain evaluator") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    Tracer t;
    const Value loss = random_model(t, seed);
    t.output("loss", loss);
    std::map<std::string, TensorView> inputs;
    std::vector<std::vector<float>> memory;
    Rig rig(seed, at_stage(3));
    rig.bind();
    for (const ValueId id : t.graph().inputs) {
      const TensorType& type = t.graph()[id].type;
      memory.emplace_back(static_cast<std::size_t>(type.elements()));
      auto& values = memory.back();
      if (t.graph()[id].input == InputKind::data) {
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::cos(static_cast<float>(i));
      } else {
        const int p = t.graph()[id].parameter;
        const auto& flat = rig.layout.flats()[static_cast<std::size_t>(rig.layout.flat_of(p))];
        const auto& entry = rig.states.at(state_name(flat, "parameter"));
        std::memcpy(values.data(),
                    rig.bases[static_cast<std::size_t>(entry.space)] + entry.offset +
                        rig.layout.entry_of(p).begin * 4,
                    values.size() * 4);
      }
      inputs.emplace(t.graph()[id].name, TensorView(values.data(), type.dtype, type.shape));
    }
    const Tensors outputs = evaluate(t.graph(), inputs, {});
    CHECK(same_bits(*outputs.at("loss").second.as<float>(), rig.run()));
  }
}

TEST_CASE("mutation: a gather that is deleted makes the loss wrong") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    Rig rig(seed, at_stage(3));
    rig.bind();
    const float expected = rig.run();
    Rig mutant(seed, at_stage(3));
    int deleted = -1;
    std::erase_if(mutant.program.steps, [&](const Step& step) {
      const Node& node = mutant.program.graph.nodes[static_cast<std::size_t>(step.node)];
      if (deleted < 0 && node.op->name == "gather") deleted = step.node;
      return step.node == deleted;
    });
    REQUIRE(deleted >= 0);
    mutant.program.body_last -= 2;
    mutant.bind();
    mutant.executor->poison = false;  // planned ends count instructions, of which two are gone
    CHECK_FALSE(same_bits(mutant.run(), expected));
  }
}

TEST_CASE("mutation: a lifetime that is one instruction short is caught by poison") {
  int caught = 0, tried = 0;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    Rig rig(seed, at_stage(3));
    rig.bind();
    const float expected = rig.run();
    const auto state = state_of(rig);
    for (std::size_t b = 0; b < rig.program.placed.size(); ++b) {
      const StorageBuffer& buffer = rig.program.placed[b].first;
      // Buffers whose last instruction only writes or waits are not read any more.
      if (buffer.category == Category::workspace ||
          buffer.last > static_cast<int>(rig.program.steps.size()))
        continue;
      const Step& last = rig.program.steps[static_cast<std::size_t>(buffer.last - 1)];
      const Node& node = rig.program.graph.nodes[static_cast<std::size_t>(last.node)];
      const bool reads =
          std::ranges::any_of(node.inputs, [&](ValueId id) { return lies_in(rig.program, id, b); });
      if (!reads || node.op->run == nullptr || buffer.last - buffer.first < 2) continue;
      Rig mutant(seed, at_stage(3));
      --mutant.program.placed[b].first.last;
      mutant.bind();
      ++tried;
      try {
        const bool same_loss = same_bits(mutant.run(), expected);
        caught += !same_loss || mutant.norm() != rig.norm() || state_of(mutant) != state;
      } catch (const Error&) {
        ++caught;  // the update refuses a scale that is not finite
      }
    }
  }
  CHECK(tried > 50);
  CHECK(caught == tried);
}

TEST_CASE("mutation: a lifetime that ends before the wait of a collective is a race") {
  int tried = 0;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const Rig rig(seed, at_stage(1 + static_cast<int>(seed % 3), 2));
    EarlyEnds ends(rig.program);
    CHECK(ends.ending_in_flight() == 0);
    ends.try_all(1);
    CHECK(ends.unseen == "");
    tried += ends.tried;
  }
  CHECK(tried > 50);
}

TEST_CASE("mutation: a missing wait is a race") {
  Rig rig(1, at_stage(3), {2, true});
  detect_races(rig.program, 1);
  int found = 0, waits = 0;
  for (std::size_t i = 0; i < rig.program.steps.size(); ++i) {
    if (rig.program.steps[i].kind != Instruction::Kind::wait) continue;
    ++waits;
    Program mutant = rig.program;
    mutant.steps.erase(mutant.steps.begin() + static_cast<std::ptrdiff_t>(i));
    try {
      detect_races(mutant, 1);
    } catch (const Error&) {
      ++found;
    }
  }
  CHECK(waits > 4);
  CHECK(found == waits);
}

TEST_CASE("program: compilation is a pure function") {
  Rig a(5, at_stage(3)), b(5, at_stage(3)), c(6, at_stage(3));
  CHECK(describe(a.program) == describe(b.program));
  CHECK(describe(a.program) != describe(c.program));
}

TEST_CASE("schedule: prefetch starts gathers before their use, with compute between") {
  Rig rig(3, at_stage(3), {1, true});
  rig.bind();
  std::vector<ExecutorEvent> log;
  rig.executor->on_event = [&](const ExecutorEvent& event) { log.push_back(event); };
  rig.run();
  int overlapped = 0;
  for (std::size_t start = 0; start < log.size(); ++start) {
    if (log[start].kind != Instruction::Kind::start) continue;
    bool compute = false;
    for (std::size_t i = start + 1; i < log.size() && !(log[i].kind == Instruction::Kind::wait &&
                                                        log[i].node == log[start].node);
         ++i) {
      compute = compute || log[i].kind == Instruction::Kind::run;
    }
    overlapped += compute;
  }
  CHECK(overlapped > 3);
}

TEST_CASE("program: one update of all flats gives the bits of one for each") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    for (int stage = 0; stage <= 3; ++stage) {
      CAPTURE(seed);
      CAPTURE(stage);
      ShardOptions options = at_stage(stage);
      Rig each(seed, options);
      options.join_updates = true;
      Rig together(seed, options);
      detect_races(together.program, 1);
      CHECK(std::ranges::count(together.program.graph.nodes, "update",
                               [](const Node& node) { return node.op->name; }) == 1);
      for (Rig* const rig : {&each, &together}) {
        rig->bind();
        rig->run();
      }
      CHECK(state_of(each) == state_of(together));
    }
  }
}

TEST_CASE("graph: what passes make is valid, and what is not is told") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (int stage = 0; stage <= 3; ++stage) {
      Rig rig(seed, at_stage(stage, 2, stage % 2 == 0));
      validate(rig.graph);
      validate(rig.program.graph);
      detect_races(rig.program, 1);
    }
  }
  Rig rig(1, at_stage(3));
  Graph swapped = rig.graph;
  std::swap(swapped.nodes.front(), swapped.nodes.back());
  CHECK_THROWS_AS(validate(swapped), Error);
  Graph late = rig.program.graph;  // a reader behind the update of what it reads
  for (const Node& node : rig.program.graph.nodes) {
    if (node.op->name != "update") continue;
    Node reader = late.nodes.back();
    reader.inputs[0] = node.inputs[2];
    late.nodes.push_back(reader);
  }
  CHECK_THROWS_AS(validate(late), Error);
}

}  // namespace ashlar
