// Several groups of ranks, each with a copy of the model state of its own (ZeroConfig::group).
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "ashlar/checkpoint.hpp"
#include "ashlar/ops.hpp"
#include "base/hash.hpp"
#include "ops/product/machine.hpp"
#include "report/footprint.hpp"
#include "sharding/train_step_parts.hpp"
#include "support/temporary_folder.hpp"
#include "train/tiny_gpt.hpp"
#include "train/values_of.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kWidth = 64;

struct Outcome {
  std::vector<std::uint32_t> losses;
  std::vector<double> norms;
  std::vector<float> parameters;
  bool operator==(const Outcome&) const = default;
};

std::string describe(const TrainConfig& c, int ranks) {
  return fmt::format(
      "{} of {} ranks, stage {}, {} on {} wire, K {} reduced {}, order {}, bucket {}", c.zero.group,
      ranks, c.zero.stage, name_of(c.precision.parameter), name_of(c.precision.reduce),
      c.micro_batches, static_cast<int>(c.reduce), static_cast<int>(c.order), c.zero.bucket_bytes);
}

/// A number of every byte that this rank would save.
std::int64_t fingerprint(const TrainStep& step) {
  std::uint64_t hash = kFnvBasis;
  for (const ShardView& shard : step.shards()) {
    const auto* bytes = reinterpret_cast<const char*>(shard.values.data);
    hash = fnv1a64({bytes, static_cast<std::size_t>(shard.values.bytes())}, hash);
  }
  return static_cast<std::int64_t>(hash);
}

/// Ranks of equal place hold equal shards. Collective.
bool copies_agree(Communicator& world, const TrainStep& step) {
  std::int64_t mine = fingerprint(step);
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  const Transfer transfer{{&mine, DType::i64, {1}}, {all.data(), DType::i64, {world.size()}}};
  world.all_gather({&transfer, 1}, "fingerprints").wait();
  const auto shards = static_cast<std::size_t>(step.layout().ranks());
  for (std::size_t r = shards; r < all.size(); ++r)
    if (all[r] != all[r % shards]) return false;
  return true;
}

using Load = std::function<void(const Batch&, std::int64_t step, std::int64_t first)>;

Outcome train(int ranks, const LossModel& model, const TrainConfig& config, const Load& load,
              int steps = 4) {
  Outcome outcome;
  launch_threads(ranks, [&](Communicator& world) {
    TrainStep step(world, model, config);
    Outcome mine;
    for (std::int64_t i = 0; i < steps; ++i) {
      const StepResult result = step.step([&](std::int64_t k, const Batch& batch) {
        load(batch, i * 8 + k, world.rank() * config.samples);
      });
      mine.losses.push_back(std::bit_cast<std::uint32_t>(result.loss));
      mine.norms.push_back(result.grad_norm);
      if (world.rank() != 0) continue;
      CHECK(result.memory.peak == step.planned().peak);
      CHECK(result.memory.at_peak == step.planned().at_peak);
      CHECK(result.memory.total == step.planned().total);
    }
    CHECK(copies_agree(world, step));
    mine.parameters = values_of(step);
    if (world.rank() == 0) outcome = mine;
  });
  return outcome;
}

TrainConfig config_of(int stage, int group, DType dtype) {
  TrainConfig config;
  config.zero.stage = stage;
  config.zero.group = group;
  config.precision = {dtype, dtype};
  config.schedule.lr = 0.01;
  config.clip = 0.5;
  config.poison = true;
  return config;
}

/// Gradients are the data, divided by powers of two.
Value linear_model(Tracer& t, DType dtype) {
  const Value x = cast(t.input("x", DType::f32, {kWidth}), dtype);
  Value sum;
  for (const char* name : {"first", "second", "third"}) {
    const auto unit = t.unit(name);
    const Value w = t.parameter({.name = std::string(name) + ".w",
                                 .shape = {kWidth},
                                 .dtype = dtype,
                                 .initializer = {Initializer::Kind::normal, 1}});
    const Value y = multiply(x, w);
    sum = sum ? add(sum, y) : y;
  }
  const auto unit = t.unit("third");
  return cast(mean(sum), DType::f32);
}

/// Whole numbers that bf16 holds exactly; it does not hold sums of two of them.
void load_integers(const Batch& batch, std::int64_t step, std::int64_t first) {
  const auto x = batch.at("x").span<float>();
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(
        philox(static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(first), i)[0] % 256);
}

LossModel gpt(DType dtype) { return tiny_gpt_loss(tiny_gpt(), {1, kTinySequence, dtype, 0.1, {}}); }

void load_gpt(const Batch& batch, std::int64_t step, std::int64_t first) {
  load_tokens(batch, step, first);
}

}  // namespace

TEST_CASE("groups: where sums are exact, groups of any size leave the bits of one") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [k, reduce] : {std::pair{1, ReduceWhen::each}, std::pair{2, ReduceWhen::each},
                                    std::pair{2, ReduceWhen::last}}) {
      const auto run = [&, k = k, reduce = reduce](int stage, int group, std::int64_t bucket) {
        TrainConfig config = config_of(stage, group, dtype);
        config.precision.reduce = k == 2 ? DType::f32 : dtype;
        config.micro_batches = k;
        config.reduce = reduce;
        config.zero.bucket_bytes = bucket;
        CAPTURE(describe(config, 4));
        return train(
            4, [&](Tracer& t) { return linear_model(t, dtype); }, config, load_integers);
      };
      const Outcome expected = run(1, 0, 1);
      REQUIRE(expected.losses.size() == 4);
      CHECK(expected.losses[0] != expected.losses[3]);
      for (int stage = 0; stage <= 3; ++stage)
        for (const int group : {1, 2, 4}) {
          CAPTURE(name_of(dtype));
          CAPTURE(k);
          CAPTURE(static_cast<int>(reduce));
          CAPTURE(stage);
          CAPTURE(group);
          CHECK(run(stage, group, 1) == expected);
          CHECK(run(stage, group, 1 << 20) == expected);
        }
    }
  }
}

TEST_CASE("groups: a GPT has the same bits at every stage, bucket, prefetch and overlap") {
  for (const auto& [ranks, group] : {std::pair{4, 2}, std::pair{6, 3}, std::pair{3, 1}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const auto& [k, reduce] :
           {std::pair{1, ReduceWhen::each}, std::pair{3, ReduceWhen::each},
            std::pair{2, ReduceWhen::last}}) {
        TrainConfig config = config_of(1, group, dtype);
        config.micro_batches = k;
        config.reduce = reduce;
        const Outcome expected = train(ranks, gpt(dtype), config, load_gpt);
        REQUIRE(expected.losses.size() == 4);
        for (const ZeroConfig& zero :
             {ZeroConfig{.stage = 0, .group = group},
              ZeroConfig{.stage = 2, .bucket_bytes = 1, .group = group},
              ZeroConfig{.stage = 3, .group = group},
              ZeroConfig{.stage = 3, .bucket_bytes = 3000, .prefetch = 3, .group = group},
              ZeroConfig{.stage = 3, .bucket_bytes = 1, .overlap = false, .group = group},
              ZeroConfig{.stage = 3, .reshard_after_forward = false, .group = group}}) {
          TrainConfig other = config;
          other.zero = zero;
          CAPTURE(describe(other, ranks));
          CHECK(train(ranks, gpt(dtype), other, load_gpt) == expected);
        }
        if (reduce != ReduceWhen::last) continue;
        TrainConfig layers = config_of(3, group, dtype);
        layers.micro_batches = k;
        layers.order = MicroBatchOrder::layers;
        CAPTURE(describe(layers, ranks));
        CHECK(train(ranks, gpt(dtype), layers, load_gpt) == expected);
      }
    }
  }
}

TEST_CASE("groups: losses are those of one group to 1e-4 in fp32") {
  const int ranks = 4;
  const Outcome one = train(ranks, gpt(DType::f32), config_of(3, 0, DType::f32), load_gpt, 30);
  const Outcome all = train(ranks, gpt(DType::f32), config_of(3, ranks, DType::f32), load_gpt, 30);
  CHECK(one == all);
  for (const int group : {1, 2}) {
    const auto some =
        train(ranks, gpt(DType::f32), config_of(3, group, DType::f32), load_gpt, 30).losses;
    for (std::size_t i = 0; i < some.size(); ++i) {
      const double expected = std::bit_cast<float>(one.losses[i]);
      CHECK(std::abs(std::bit_cast<float>(some[i]) - expected) <= 1e-4 * expected);
    }
  }
}

TEST_CASE("groups: a rank has the state of a world as small as its group, and sends as counted") {
  for (const auto& [ranks, group] : {std::pair{4, 2}, std::pair{6, 2}, std::pair{6, 3}}) {
    for (int stage = 0; stage <= 3; ++stage) {
      for (const std::int64_t k : {1, 2}) {
        TrainConfig config = config_of(stage, group, DType::bf16);
        config.micro_batches = k;
        CAPTURE(describe(config, ranks));
        const CompiledStep step = compile_step(gpt(DType::bf16), config, ranks, host_backend(1));
        TrainConfig alone = config;
        alone.zero.group = 0;
        const CompiledStep small = compile_step(gpt(DType::bf16), alone, group, host_backend(1));
        CHECK(step.states.by_category() == small.states.by_category());
        SentBytes expected = sent_bytes(small);
        constexpr auto kAllReduce = static_cast<std::size_t>(Traffic::all_reduce);
        expected[kAllReduce] = sent_bytes(step)[kAllReduce];
        CHECK(sent_bytes(step) == expected);
        const double copies = static_cast<double>(ranks) / group;
        const double sums = 4.0 * static_cast<double>(step.layout.padded(true)) / group;
        const double more = 4 * 64 * 2 * static_cast<double>(step.layout.flats().size());
        CHECK(std::abs(static_cast<double>(expected[kAllReduce]) -
                       2 * (copies - 1) / copies * sums) <= more);
        launch_threads(ranks, [&, ranks = ranks](Communicator& world) {
          TrainStep train(world, gpt(DType::bf16), config);
          const SentBytes before = train.sent_bytes();
          train.step([](std::int64_t, const Batch& batch) { load_tokens(batch, 1, 0); });
          SentBytes sent = train.sent_bytes();
          for (std::size_t t = 0; t < sent.size(); ++t) sent[t] -= before[t];
          if (world.rank() == 0) CHECK(sent == expected);
        });
      }
    }
  }
}

TEST_CASE("groups: a checkpoint of one copy goes on at any world, stage and group") {
  const TemporaryFolder folder;
  const TrainConfig config = config_of(3, 2, DType::bf16);
  const Outcome whole = train(4, gpt(DType::bf16), config, load_gpt, 6);
  std::vector<float> saved;
  launch_threads(4, [&](Communicator& world) {
    TrainStep step(world, gpt(DType::bf16), config);
    for (std::int64_t i = 0; i < 3; ++i)
      step.step(
          [&](std::int64_t k, const Batch& batch) { load_gpt(batch, i * 8 + k, world.rank()); });
    save_checkpoint(world, folder.path, step.layout(), step.shards(), "{}");
    const auto values = values_of(step);
    if (world.rank() == 0) saved = values;
  });
  CHECK(inspect_checkpoint(folder.path).ranks == 2);
  for (const auto& [ranks, group, stage] :
       {std::tuple{3, 0, 1}, std::tuple{6, 3, 2}, std::tuple{1, 0, 0}, std::tuple{2, 1, 3},
        std::tuple{4, 2, 3}}) {
    CAPTURE(ranks);
    CAPTURE(group);
    launch_threads(ranks, [&, ranks = ranks, group = group, stage = stage](Communicator& world) {
      TrainStep step(world, gpt(DType::bf16), config_of(stage, group, DType::bf16));
      load_checkpoint(world, folder.path, step.layout(), step.shards());
      step.restore_from_shards();
      step.set_steps(3);
      CHECK(copies_agree(world, step));
      const auto values = values_of(step);
      if (world.rank() == 0) CHECK(values == saved);
      if (group != 2 || ranks != 4) return;
      for (std::int64_t i = 3; i < 6; ++i) {
        const StepResult result = step.step(
            [&](std::int64_t k, const Batch& batch) { load_gpt(batch, i * 8 + k, world.rank()); });
        CHECK(std::bit_cast<std::uint32_t>(result.loss) ==
              whole.losses[static_cast<std::size_t>(i)]);
      }
    });
  }
}

TEST_CASE("groups: ranks that disagree on them, and groups that do not divide, are refused") {
  const auto make = [](Communicator& world, int group) {
    TrainStep(world, gpt(DType::f32), config_of(3, group, DType::f32));
  };
  CHECK_THROWS_WITH_AS(launch_threads(4, [&](Communicator& world) { make(world, 3); }),
                       "a sharding group of 3: must divide the 4 ranks (0: all of them)",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(
      launch_threads(4, [&](Communicator& world) { make(world, world.rank() == 2 ? 1 : 2); }),
      doctest::Contains("copies of the model state"), InvalidArgument);
}

TEST_CASE("groups: without the sums over copies, copies drift apart") {
  launch_threads(4, [](Communicator& world) {
    OpDef nothing;
    const auto forget = [&](Program& program) {
      for (Node& node : program.graph.nodes) {
        if (node.op->name != "all_reduce_replicas") continue;
        nothing = *node.op;
        nothing.start = [](const KernelArguments&) { return Work(); };
        node.op = &nothing;
      }
    };
    TrainStep step(world, gpt(DType::f32), config_of(2, 2, DType::f32), {}, {forget, {}});
    CHECK(copies_agree(world, step));
    step.step([&](std::int64_t k, const Batch& batch) { load_gpt(batch, k, world.rank()); });
    CHECK(!copies_agree(world, step));
  });
}

}  // namespace ashlar
