// Overlap and prefetch as the executor's event log shows them, under a communicator that delays
// every collective.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "ashlar/communicator.hpp"
#include "comm/fault.hpp"
#include "sharding/train_step_parts.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar {
namespace {

using Kind = Instruction::Kind;

/// One collective of a micro-batch as the log has it.
struct Flight {
  std::string_view op;
  bool prefetched = false;
  std::size_t start = 0, wait = 0;  // positions in the log
};

/// The log of a step, with what its program says of the nodes.
struct Log {
  std::vector<ExecutorEvent> events;
  Graph graph;

  const Node& node(const ExecutorEvent& event) const {
    return graph.nodes[static_cast<std::size_t>(event.node)];
  }
  bool computes(std::size_t i) const {
    return events[i].kind == Kind::run && node(events[i]).op->run != nullptr;
  }
  int kernels_between(std::size_t begin, std::size_t end) const {
    int count = 0;
    for (std::size_t i = begin + 1; i < end; ++i) count += computes(i);
    return count;
  }
  /// In the order in which they start.
  std::vector<Flight> flights(std::int64_t micro_batch) const {
    std::vector<Flight> all;
    std::map<int, std::size_t> open;
    for (std::size_t i = 0; i < events.size(); ++i) {
      if (events[i].micro_batch != micro_batch || events[i].kind == Kind::run) continue;
      if (events[i].kind == Kind::start) {
        open[events[i].node] = all.size();
        const Node& started = node(events[i]);
        all.push_back({started.op->name, started.attributes.has("prefetch"), i, 0});
      } else {
        REQUIRE(open.contains(events[i].node));
        all[open.at(events[i].node)].wait = i;
        open.erase(events[i].node);
      }
    }
    CHECK(open.empty());
    return all;
  }
};

constexpr std::int64_t kLayers = 3, kMicroBatches = 2;

Log log_of(int ranks, int prefetch, bool overlap) {
  Log log;
  launch_threads(ranks, [&](Communicator& threads) {
    detail::FaultCommunicator world(threads, {.delay = std::chrono::microseconds(200)});
    TrainConfig config;
    config.zero = {3, 1, prefetch, overlap};
    config.micro_batches = kMicroBatches;
    config.reduce = ReduceWhen::each;
    config.clip = 1;
    TrainStep::Hooks hooks;
    if (world.rank() == 0) {
      hooks.compiled = [&](Program& program) { log.graph = program.graph; };
      hooks.bound = [&](Executor& executor) {
        executor.on_event = [&](const ExecutorEvent& event) { log.events.push_back(event); };
      };
    }
    TrainStep step(world, tiny_gpt_loss(tiny_gpt(kLayers), {1, kTinySequence, DType::f32, 0, {}}),
                   config, {}, hooks);
    step.step([&](std::int64_t k, const Batch& batch) { load_tokens(batch, k, world.rank()); });
  });
  return log;
}

std::vector<Flight> unit_gathers(const Log& log, std::int64_t micro_batch) {
  std::vector<Flight> gathers = log.flights(micro_batch);
  std::erase_if(gathers, [](const Flight& flight) { return !flight.prefetched; });
  return gathers;
}

/// How many units are entered (their gathers waited for) between a gather's start and its wait.
std::int64_t units_ahead(const std::vector<Flight>& gathers, std::size_t g) {
  return std::count_if(gathers.begin(), gathers.end(), [&](const Flight& other) {
    return other.wait > gathers[g].start && other.wait < gathers[g].wait;
  });
}

}  // namespace

TEST_CASE("overlap: each unit's gather starts `prefetch` units before its wait, compute between") {
  for (const int ranks : {2, 3}) {
    const Log on_demand = log_of(ranks, 0, true);
    for (const int prefetch : {0, 1, 2, 3}) {
      const Log log = log_of(ranks, prefetch, true);
      for (std::int64_t k = 0; k < kMicroBatches; ++k) {
        const auto gathers = unit_gathers(log, k), late = unit_gathers(on_demand, k);
        // Embedding, blocks and the tied head's two; all but the last once more for backward.
        REQUIRE(gathers.size() >= 2 * (kLayers + 1));
        REQUIRE(gathers.size() == late.size());
        for (std::size_t g = 0; g < gathers.size(); ++g) {
          CAPTURE(ranks);
          CAPTURE(prefetch);
          CAPTURE(k);
          CAPTURE(g);
          const auto expected = std::min<std::int64_t>(prefetch, static_cast<std::int64_t>(g));
          CHECK(units_ahead(gathers, g) == expected);
          CHECK(units_ahead(late, g) == 0);
          CHECK((log.kernels_between(gathers[g].start, gathers[g].wait) > 0) == (expected > 0));
          CHECK(on_demand.kernels_between(late[g].start, late[g].wait) == 0);
        }
      }
    }
  }
}

TEST_CASE("overlap: reductions run beside backward; off, every wait follows its start") {
  for (const int ranks : {2, 3}) {
    for (const int prefetch : {0, 1, 2, 3}) {
      CAPTURE(ranks);
      CAPTURE(prefetch);
      const Log on = log_of(ranks, prefetch, true), off = log_of(ranks, prefetch, false);
      for (std::int64_t k = 0; k < kMicroBatches; ++k) {
        int reductions = 0, beside = 0;
        for (const Flight& flight : on.flights(k)) {
          if (flight.op != "reduce_scatter") continue;
          ++reductions;
          beside += on.kernels_between(flight.start, flight.wait) > 0;
        }
        CHECK(reductions == kLayers + 2);  // a bucket per unit
        CHECK(beside == reductions);       // the last beside the sum of the losses
        const auto flights = off.flights(k);
        CHECK(flights.size() == on.flights(k).size());
        for (const Flight& flight : flights) CHECK(flight.wait == flight.start + 1);
      }
    }
  }
}

}  // namespace ashlar
