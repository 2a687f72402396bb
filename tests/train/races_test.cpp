// What must hold of the programs of GPTs in any setting: no race, one as soon as any single wait is
// gone, and a name on every collective.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <random>

#include "ashlar/error.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {
namespace {

/// reduce each micro-batch or the last one; layer order.
constexpr std::array<std::pair<bool, bool>, 3> kWays{
    {{true, false}, {false, false}, {false, true}}};

std::size_t index(int i) { return static_cast<std::size_t>(i); }

/// True when a kernel of the same section reads or writes what the collective works on, later.
bool used_by_kernels(const Program& program, std::size_t wait) {
  const auto buffer_of = [&](ValueId id) {
    return id == kNoValue ? -1 : program.storage.places[index(id)].buffer;
  };
  const Node& collective = program.graph.nodes[index(program.steps[wait].node)];
  for (std::size_t i = wait + 1; i < program.steps.size(); ++i) {
    const Node& node = program.graph.nodes[index(program.steps[i].node)];
    if (node.section != collective.section) break;
    if (node.op->run == nullptr || node.op->view != nullptr) continue;
    for (const ValueId in : node.inputs) {
      for (const ValueId out : collective.outputs) {
        if (in != kNoValue && buffer_of(in) == buffer_of(out) &&
            program.storage.places[index(in)].offset == program.storage.places[index(out)].offset)
          return true;
      }
    }
  }
  return false;
}

std::string race_of(const Program& program, int ranks) {
  try {
    detect_races(program, ranks);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

/// Takes one wait away, sometimes, and expects the detector to say whose.
int check_without_waits(const Program& program, int ranks, std::mt19937& random) {
  int tried = 0;
  for (std::size_t i = 0; i < program.steps.size(); ++i) {
    if (program.steps[i].kind != Instruction::Kind::wait || random() % 16 != 0) continue;
    ++tried;
    Program mutant = program;
    mutant.steps.erase(mutant.steps.begin() + static_cast<std::ptrdiff_t>(i));
    const std::string race = race_of(mutant, ranks);
    const int node = program.steps[i].node;
    CAPTURE(race);
    CHECK(race.find(fmt::format("node {} ({})", node, program.graph.nodes[index(node)].op->name)) !=
          std::string::npos);
    if (used_by_kernels(program, i))
      CHECK(race.find("while that is in flight") != std::string::npos);
  }
  return tried;
}

}  // namespace

TEST_CASE("labels: every collective of a step names a unit or a value, in any setting") {
  int collectives = 0;
  for (const std::int64_t k : {1, 2}) {
    for (const auto& [each, layers] : kWays) {
      for (int stage = 0; stage <= 3; ++stage) {
        for (const std::int64_t bucket : {1, 4000, 1 << 20}) {
          ShardOptions options;
          options.micro_batches = k;
          options.reduce_each = each;
          options.layer_order = layers;
          options.clip = 1;
          options.zero = {stage, bucket};
          options.replicas = bucket == 4000 ? 2 : 1;
          const Graph joint = trace_training(
              tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, DType::f32, 0, {}}), options);
          const FlatLayout layout(joint.parameters, joint.units, 3);
          const Graph sharded = shard_step(joint, layout, options, {});
          for (const Node& node : sharded.nodes) {
            if (node.op->start == nullptr) continue;
            CAPTURE(node.op->name);
            CHECK(label_of(sharded, node) != "");
            ++collectives;
          }
        }
      }
    }
  }
  CHECK(collectives > 500);
}

TEST_CASE("races: none in a GPT's step in any setting; one when any single wait is gone") {
  std::mt19937 random(11);
  int programs = 0, tried = 0;
  for (const bool tied : {true, false}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const std::int64_t k : {1, 2, 3}) {
        for (const auto& [each, layers] : kWays) {
          ShardOptions options;
          options.precision = {dtype, dtype};
          options.micro_batches = k;
          options.reduce_each = each;
          options.layer_order = layers;
          const Graph joint = trace_training(
              tiny_gpt_loss(tiny_gpt(2, tied), {1, kTinySequence, dtype, 0.1, {}}), options);
          for (int stage = 0; stage <= 3; ++stage) {
            for (int ranks = 1; ranks <= 4; ++ranks) {
              const FlatLayout layout(joint.parameters, joint.units, ranks);
              options.zero.stage = stage;
              options.replicas = ranks % 2 == 0 ? 2 : 1;
              options.zero.bucket_bytes = random() % 2 == 0 ? 1 : 4000;
              options.zero.reshard_after_forward = random() % 4 != 0;
              options.clip = random() % 2 == 0 ? 0 : 1;
              const Graph sharded = shard_step(joint, layout, options, {});
              for (int prefetch = 0; prefetch <= 3; ++prefetch) {
                for (const bool overlap : {true, false}) {
                  if (!overlap && prefetch > 0) continue;  // the same program
                  CAPTURE(tied);
                  CAPTURE(name_of(dtype));
                  CAPTURE(k);
                  CAPTURE(stage);
                  CAPTURE(ranks);
                  CAPTURE(prefetch);
                  CAPTURE(overlap);
                  StateLayout states;
                  const Program program = compile(sharded, {prefetch, overlap}, {}, states);
                  CHECK(race_of(program, ranks).empty());
                  ++programs;
                  tried += check_without_waits(program, ranks, random);
                }
              }
            }
          }
        }
      }
    }
  }
  CHECK(programs == 2 * 2 * 3 * 3 * 4 * 4 * 5);
  CHECK(tried > programs / 2);
}

}  // namespace ashlar
