// A small GPT trained for 30 steps: at one world size every way to shard, overlap and bucket it
// gives the same bits; across worlds the same global batch gives the same losses. Each run also
// holds its plan to what the run counted.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <bit>
#include <cmath>
#include <random>
#include <set>

#include "ashlar/communicator.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/train_step.hpp"
#include "base/math/philox.hpp"

namespace ashlar {
namespace {

constexpr std::int64_t kSteps = 30, kSequence = 12;

/// What may not change a bit.
struct Setting {
  int stage = 0, prefetch = 1;
  std::int64_t bucket = 25 << 20;
  bool overlap = true, reshard = true;
};

std::string describe(const Setting& s) {
  return fmt::format("stage {}, prefetch {}, bucket {}, overlap {}, reshard {}", s.stage,
                     s.prefetch, s.bucket, s.overlap, s.reshard);
}

/// What may.
struct Run {
  DType dtype = DType::f32, wire = DType::f32;
  std::int64_t batch = 2, accumulate = 1;
  ReduceWhen reduce = ReduceWhen::each;
  double clip = 0, dropout = 0;
  std::vector<std::string> freeze = {};
  bool tied = true;
};

std::string describe(const Run& r) {
  return fmt::format("{} on {} wire, K {} reduced {}, clip {}, dropout {}, {} frozen, {}",
                     name_of(r.dtype), name_of(r.wire), r.accumulate,
                     r.reduce == ReduceWhen::each ? "each" : "last", r.clip, r.dropout,
                     r.freeze.size(), r.tied ? "tied" : "untied");
}

/// Indices into `sizes` per factor: random rows until every pair of values of two factors occurs.
std::vector<std::vector<std::size_t>> all_pairs(const std::vector<std::size_t>& sizes) {
  using Pair = std::array<std::size_t, 4>;
  const auto pairs_of = [](const std::vector<std::size_t>& row) {
    std::set<Pair> pairs;
    for (std::size_t a = 0; a < row.size(); ++a)
      for (std::size_t b = a + 1; b < row.size(); ++b) pairs.insert({a, row[a], b, row[b]});
    return pairs;
  };
  std::size_t wanted = 0;
  for (std::size_t a = 0; a < sizes.size(); ++a)
    for (std::size_t b = a + 1; b < sizes.size(); ++b) wanted += sizes[a] * sizes[b];
  std::mt19937 random(7);
  std::set<Pair> seen;
  std::vector<std::vector<std::size_t>> rows;
  while (seen.size() < wanted) {
    std::vector<std::size_t> best;
    std::size_t most = 0;
    for (int candidate = 0; candidate < 50; ++candidate) {
      std::vector<std::size_t> row;
      for (const std::size_t size : sizes) row.push_back(random() % size);
      std::size_t fresh = 0;
      for (const Pair& pair : pairs_of(row)) fresh += seen.contains(pair) ? 0 : 1;
      if (fresh > most) most = fresh, best = row;
    }
    if (most == 0) continue;
    seen.merge(pairs_of(best));
    rows.push_back(best);
  }
  return rows;
}

std::vector<Setting> settings() {
  constexpr std::array<std::int64_t, 3> kBuckets{1, 9000, 25 << 20};
  std::vector<Setting> all;
  for (const auto& row : all_pairs({4, 4, kBuckets.size(), 2, 2}))
    all.push_back({static_cast<int>(row[0]), static_cast<int>(row[1]), kBuckets[row[2]],
                   row[3] == 1, row[4] == 1});
  return all;
}

void load(const Batch& batch, std::int64_t step, std::int64_t micro_batch, std::int64_t first) {
  const auto tokens = batch.at("tokens").span<std::int32_t>();
  const auto targets = batch.at("targets").span<std::int32_t>();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto at = static_cast<std::uint64_t>(first * kSequence) + i;
    const auto words = philox(static_cast<std::uint64_t>(step * 16 + micro_batch), 1, at);
    tokens[i] = static_cast<std::int32_t>(words[0] % 61);
    targets[i] = (tokens[i] * 7 + 1) % 61;
  }
}

/// The plan's prediction, and what the run counted by references alone.
void check_plan(const MemoryUse& measured, const MemoryUse& planned) {
  CHECK(measured.total == planned.total);
  CHECK(measured.peak == planned.peak);
  CHECK(measured.at_peak == planned.at_peak);
  CHECK(measured.padding == planned.padding);
  CHECK(measured.fragmentation == planned.fragmentation);
  CHECK(measured.padding >= 0);
  CHECK(measured.fragmentation >= 0);
  for (std::size_t c = 0; c < kCategories; ++c) CHECK(measured.peak[c] >= measured.at_peak[c]);
}

/// The losses of all steps, as every rank has them.
std::vector<std::uint32_t> train(int ranks, const Setting& setting, const Run& run) {
  const GptConfig model{"bits", 2, 2, 32, kSequence + 1, 61, 50, run.tied, 1e-5};
  std::vector<std::uint32_t> losses;
  launch_threads(ranks, [&](Communicator& world) {
    TrainConfig config;
    config.zero = {setting.stage, setting.bucket, setting.prefetch, setting.overlap,
                   setting.reshard};
    config.precision = {run.dtype, run.wire};
    config.schedule.lr = 0.01;
    config.clip = run.clip;
    config.micro_batches = run.accumulate;
    config.reduce = run.reduce;
    config.seed = 3;
    config.samples = run.batch;
    config.poison = true;
    const auto how = [&](double dropout) {
      return ModelTrace{run.batch, kSequence, run.dtype, dropout, run.freeze};
    };
    TrainStep step(world, [&](Tracer& t) { return gpt_loss(t, model, how(run.dropout)); }, config,
                   {[&](Tracer& t) { t.output("loss", gpt_loss(t, model, how(0))); }});
    std::vector<std::uint32_t> mine;
    for (std::int64_t i = 0; i < kSteps; ++i) {
      const StepResult result = step.step([&](std::int64_t micro_batch, const Batch& batch) {
        load(batch, i, micro_batch, world.rank() * run.batch);
      });
      mine.push_back(std::bit_cast<std::uint32_t>(result.loss));
      if (world.rank() == 0 && i < 2) check_plan(result.memory, step.planned());
    }
    if (world.rank() == 0) losses = mine;
  });
  return losses;
}

/// Runs of one data type. The first sees all pairs of settings, the others a third each.
std::vector<Run> runs(DType dtype) {
  const std::vector<std::string> frozen{"wpe", "h.0.*.bias"};
  return {{dtype, dtype, 2, 1, ReduceWhen::each, 0.5, 0.1, frozen, true},
          {dtype, dtype, 2, 1, ReduceWhen::each, 0, 0, {}, true},
          {dtype, DType::f32, 1, 2, ReduceWhen::each, 0.5, 0.1, frozen, false},
          {dtype, dtype, 1, 3, ReduceWhen::last, 0.5, 0.1, {"h.1.mlp"}, true}};
}

void check_bits(DType dtype) {
  for (const int ranks : {1, 2, 3, 4}) {
    const std::vector<Run> all = runs(dtype);
    for (std::size_t r = 0; r < all.size(); ++r) {
      const Run& run = all[r];
      CAPTURE(ranks);
      CAPTURE(describe(run));
      const auto expected = train(ranks, {}, run);
      REQUIRE(expected.size() == static_cast<std::size_t>(kSteps));
      CHECK(std::bit_cast<float>(expected.back()) < std::bit_cast<float>(expected.front()));
      const std::vector<Setting> others = settings();
      for (std::size_t s = r; s < others.size(); s += r == 0 ? 1 : all.size() - 1) {
        CAPTURE(describe(others[s]));
        CHECK(train(ranks, others[s], run) == expected);
      }
    }
  }
}

}  // namespace

TEST_CASE("gpt: 30 losses in fp32 have the same bits in all pairs of settings, worlds 1 to 4") {
  check_bits(DType::f32);
}

TEST_CASE("gpt: 30 losses in bf16 have the same bits in all pairs of settings, worlds 1 to 4") {
  check_bits(DType::bf16);
}

TEST_CASE("gpt: worlds that share the global batch agree on the losses to 1e-4 in fp32") {
  Run run{.batch = 12, .clip = 0.5, .dropout = 0.1, .freeze = {"wpe"}};
  const auto expected = train(1, {}, run);
  for (const int ranks : {2, 3, 4}) {
    run.batch = 12 / ranks;
    const auto losses = train(ranks, {3}, run);
    for (std::size_t i = 0; i < losses.size(); ++i) {
      CAPTURE(ranks);
      CAPTURE(i);
      const double theirs = std::bit_cast<float>(expected[i]);
      CHECK(std::abs(std::bit_cast<float>(losses[i]) - theirs) <= 1e-4 * theirs);
    }
  }
}

TEST_CASE("gpt: clips, dropouts and frozen parameters give other bits") {
  const auto plain = train(2, {3}, {});
  CHECK(train(2, {3}, {.clip = 0.5}) != plain);
  CHECK(train(2, {3}, {.dropout = 0.1}) != plain);
  CHECK(train(2, {3}, {.freeze = {"wpe"}}) != plain);
  CHECK(train(2, {3}, {.tied = false}) != plain);
  CHECK(train(2, {3}, {.batch = 1, .accumulate = 2}) != plain);
}

}  // namespace ashlar
