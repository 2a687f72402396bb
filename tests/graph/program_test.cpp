// Programs against independent readers of the same graph.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ashlar/error.hpp"
#include "graph/evaluate.hpp"
#include "graph/random_program.hpp"

namespace ashlar {

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
