// Ranks over NCCL that record their steps and replay them: the bits, the counts and the failures of
// steps issued anew.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "comm/failures.hpp"
#include "nccl/late_rank.hpp"
#include "report/footprint.hpp"
#include "sharding/compile_step.hpp"

namespace ashlar {
namespace {

using namespace test;  // NOLINT: what its own header declares

constexpr int kRanks = 2;
constexpr std::int64_t kReplayed = 10;  // after one that is issued

Run run_of(int stage) {
  return {.ranks = kRanks,
          .stage = stage,
          .dtype = stage == 3 ? DType::bf16 : DType::f32,
          .steps = kReplayed + 1,
          .layers = 1,
          .warmup = 4,
          .micro_batches = 2};
}

int sections_of(const Run& run) { return 2 + static_cast<int>(run.micro_batches); }

/// What one rank has seen of a run.
struct Seen {
  std::vector<std::uint64_t> bits;
  std::vector<SentBytes> sent;  // by step
  std::vector<double> flops;    // by step
  std::vector<std::string> recent;
  int recordings = 0, launches = 0, instructions = 0;
};

struct Settings {
  int watched = -1;  // the rank whose instructions are
  int lost_stream = -1, lost_wait = -1;
};

TrainStep make_step(LateRank& rank, const Run& run,
                    const std::function<void(Executor&)>& bound = {}) {
  TrainConfig config = config_of(run);
  config.memory = &rank.device.memory();
  return {*rank.world, model_of(run), config, {}, {{}, bound, &rank.side}};
}

StepResult take_step(LateRank& rank, TrainStep& step) {
  return step.step(
      [&](std::int64_t k, const Batch& batch) { load_tokens(batch, k, rank.world->rank()); });
}

Seen train_rank(LateRank& rank, const Run& run, const Settings& settings,
                const std::function<void(std::int64_t step)>& after = {}) {
  int instructions = 0;
  TrainStep step = make_step(rank, run, [&](Executor& executor) {
    if (rank.world->rank() == settings.watched)
      executor.on_event = [&](const ExecutorEvent&) { ++instructions; };
  });
  Seen seen;
  SentBytes before = step.sent_bytes();
  for (std::int64_t i = 0; i < run.steps; ++i) {
    const StepResult result = take_step(rank, step);
    seen.bits.push_back(std::bit_cast<std::uint32_t>(result.loss));
    seen.bits.push_back(std::bit_cast<std::uint64_t>(result.grad_norm));
    seen.flops.push_back(result.flops);
    const SentBytes now = step.sent_bytes();
    SentBytes& sent = seen.sent.emplace_back();
    std::ranges::transform(now, before, sent.begin(), std::minus<>());
    before = now;
    if (after) after(i);
  }
  seen.recent = rank.world->recent();
  for (const float value : values_of(step))
    seen.bits.push_back(std::bit_cast<std::uint32_t>(value));
  seen.recordings = rank.device.recordings;
  seen.launches = rank.device.launches;
  seen.instructions = instructions;
  return seen;
}

std::vector<Seen> train(const Run& run, const Settings& settings = {}) {
  std::vector<Seen> seen(kRanks);
  launch_threads(kRanks, [&](Communicator& threads) {
    LateRank rank(threads, run.ahead, run.seed);
    rank.device.lost_stream = settings.lost_stream;
    rank.device.lost_wait = settings.lost_wait;
    seen[static_cast<std::size_t>(threads.rank())] = train_rank(rank, run, settings);
  });
  return seen;
}

}  // namespace

TEST_CASE("nccl: ten replayed steps equal ten issued ones, in bits and in what they count") {
  const Faults faults;
  for (const int stage : {0, 1, 2, 3}) {
    CAPTURE(stage);
    Run run = run_of(stage);
    const std::vector<Seen> issued = train(run, {.watched = 0});
    CHECK(issued[0].recordings + issued[1].recordings == 0);
    const CompiledStep program =
        compile_step(model_of(run), config_of(run), kRanks, emulated({}).backend);
    run.ahead = stage % 2 == 0 ? Ahead::nothing : Ahead::random;
    const std::vector<Seen> replayed = train(run);
    for (std::size_t r = 0; r < kRanks; ++r) {
      CHECK(replayed[r].bits == issued[r].bits);
      CHECK(replayed[r].sent == issued[r].sent);
      CHECK(replayed[r].flops == issued[r].flops);
      CHECK(replayed[r].recent == issued[r].recent);
      CHECK(replayed[r].recordings == sections_of(run));
      CHECK(replayed[r].launches == sections_of(run) * kReplayed);
    }
    for (const SentBytes& sent : replayed[0].sent) CHECK(sent == sent_bytes(program));
  }
  CHECK(faults->communicators == 0);
  CHECK(faults->stuck == 0);
}

TEST_CASE("nccl: a replayed step calls nothing of NCCL and takes no memory") {
  const Faults faults;
  launch_threads(kRanks, [&](Communicator& threads) {
    LateRank rank(threads);
    const Run run = run_of(3);
    int calls = 0, allocations = 0;
    train_rank(rank, run, {}, [&](std::int64_t step) {
      threads.barrier();
      if (step > 1) {
        CHECK(faults->calls == calls);
        CHECK(rank.device.allocations() == allocations);
      }
      calls = faults->calls;
      allocations = rank.device.allocations();
      threads.barrier();
    });
    CHECK(calls > 0);
  });
}

// Sums that start too early find gradients that are not there, kernels that do not wait find
// neither parameters nor sums. What leaves or never joins the recording is refused.
TEST_CASE("nccl: each order between streams that a recorded step loses is seen") {
  Run run = run_of(3);
  run.micro_batches = 1;
  run.steps = 3;
  std::array<int, 2> first{}, last{};
  std::vector<std::string> calls;
  launch_threads(kRanks, [&](Communicator& threads) {
    LateRank rank(threads);
    train_rank(rank, run, {}, [&](std::int64_t step) {
      if (threads.rank() != 0 || step > 1) return;
      for (const int stream : {0, 1})
        (step == 0 ? first : last)[stream] = rank.device.waits(stream);
      calls = rank.world->recent();
    });
  });
  const int count = last[1] - first[1];
  REQUIRE(count >= 6);
  REQUIRE(last[0] - first[0] == count);
  calls.erase(calls.begin(), calls.end() - count);
  const std::vector<Seen> expected = train(run);

  int refused = 0;
  const auto shows = [&](int stream, int wait) {
    try {
      return train(run, {.lost_stream = stream, .lost_wait = wait})[0].bits != expected[0].bits;
    } catch (const Error& error) {
      CHECK(contains(error.what(), stream == 0 ? "before a stream has joined it again"
                                               : "waits for what is not recorded"));
      ++refused;
      return true;
    }
  };
  run.ahead = Ahead::others;
  for (int fork = 0; fork < count; ++fork) {
    const bool sums = !contains(calls[static_cast<std::size_t>(fork)], " all_gather ");
    CAPTURE(calls[static_cast<std::size_t>(fork)]);
    if (sums) CHECK(shows(1, first[1] + fork));
  }
  CHECK(shows(1, first[1]));
  CHECK(refused >= 1);
  refused = 0;
  run.ahead = Ahead::first;
  for (int join = 0; join < count; ++join) {
    CAPTURE(join);
    CHECK(shows(0, first[0] + join));
  }
  CHECK(refused >= 2);
}

TEST_CASE("nccl: where one rank watches its instructions, none records") {
  Run run = run_of(2);
  run.steps = 4;
  const std::vector<Seen> replayed = train(run);
  for (const int watched : {0, 1}) {
    const std::vector<Seen> seen = train(run, {.watched = watched});
    for (std::size_t r = 0; r < kRanks; ++r) {
      CHECK(seen[r].bits == replayed[r].bits);
      CHECK(seen[r].recordings == 0);
      CHECK((seen[r].instructions > 100) == (static_cast<int>(r) == watched));
    }
  }
}

TEST_CASE("nccl: who begins to watch where ranks replay is told, and the others do not hang") {
  const Faults faults;
  launch_threads(kRanks, [&](Communicator& threads) {
    LateRank rank(threads);
    Executor* executor = nullptr;
    TrainStep step = make_step(rank, run_of(1), [&](Executor& made) { executor = &made; });
    for (int i = 0; i < 3; ++i) take_step(rank, step);
    rank.world->set_timeout(std::chrono::seconds(2));
    if (threads.rank() == 1) executor->on_event = [](const ExecutorEvent&) {};
    const std::string error = error_of([&] { take_step(rank, step); });
    CHECK(
        contains(error, threads.rank() == 1 ? "before the first step" : "not every rank arrived"));
  });
  CHECK(faults->stuck == 0);
}

}  // namespace ashlar
