// Unequal ranks in sharding groups: against a naive clock per rank, and collapsed against apart.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

#include "ops/product/machine.hpp"
#include "simulate/simulation.hpp"
#include "train/tiny_gpt.hpp"

namespace ashlar::simulate {
namespace {

using Kind = Task::Kind;

/// Up to 3 collectives in flight, among anybody.
Workload random_workload(std::mt19937& random, int streams) {
  Workload w;
  std::vector<int> flying;
  for (auto n = 10 + random() % 50; n > 0; --n) {
    const auto choice = random() % 3;
    if (choice == 0) w.tasks.push_back({Kind::compute, static_cast<std::int64_t>(random() % 1000)});
    if (choice == 1 && flying.size() < 3) {
      flying.push_back(static_cast<int>(w.collectives.size()));
      w.tasks.push_back({Kind::start, 0, flying.back()});
      CollectiveCall& call = w.collectives.emplace_back();
      call.kind = static_cast<CollectiveKind>(random() % 3);
      call.picoseconds = static_cast<std::int64_t>(random() % 1500);
      call.among = static_cast<Among>(random() % 3);
      call.stream = static_cast<int>(random() % static_cast<unsigned>(streams));
    }
    if (choice == 2 && !flying.empty()) {
      const auto which = flying.begin() + static_cast<std::ptrdiff_t>(random() % flying.size());
      w.tasks.push_back({Kind::wait, 0, *which});
      flying.erase(which);
    }
  }
  for (const int f : flying) w.tasks.push_back({Kind::wait, 0, f});
  w.body_last = static_cast<int>(w.tasks.size());
  w.repeats = 1 + random() % 3;
  return w;
}

/// Few values, often equal rows or columns: there is something to collapse.
std::vector<double> random_slowdowns(std::mt19937& random, int ranks, int group) {
  constexpr std::array<double, 4> kFactors{1, 1.25, 1.7, 0.8};
  const auto factors = 1 + random() % kFactors.size();
  const auto pattern = random() % 4;
  std::vector<double> result;
  for (int r = 0; r < ranks; ++r) {
    const int seat = pattern == 0 ? r / group : pattern == 1 ? r % group : r;
    const bool late = pattern == 3 ? r + 2 >= ranks : (seat * 7 + 3) % 5 < 2;
    result.push_back(pattern == 2 ? kFactors[random() % factors]
                                  : kFactors[late ? factors - 1 : 0]);
  }
  return result;
}

/// The rule as one would say it, on one stream: who meets begins together, done together.
std::vector<std::int64_t> naive_ends(const Workload& w, const std::vector<double>& slowdowns,
                                     int group) {
  const int ranks = static_cast<int>(slowdowns.size());
  std::vector<std::int64_t> clock(slowdowns.size()), free(slowdowns.size());
  std::map<std::pair<int, int>, std::int64_t> done;  // by collective and rank
  const auto meet = [&](Among among, int a, int b) {
    return among == Among::world ||
           (among == Among::shards ? a / group == b / group : a % group == b % group);
  };
  const auto at = [](auto& list, int rank) -> auto& {
    return list[static_cast<std::size_t>(rank)];
  };
  const auto take = [&](const Task& task) {
    const std::vector<std::int64_t> was = clock, was_free = free;
    for (int r = 0; r < ranks; ++r) {
      if (task.kind == Kind::compute)
        at(clock, r) += std::llround(static_cast<double>(task.picoseconds) * at(slowdowns, r));
      if (task.kind == Kind::wait)
        at(clock, r) = std::max(at(clock, r), done[{task.collective, r}]);
      if (task.kind != Kind::start) continue;
      const CollectiveCall& call = w.collectives[static_cast<std::size_t>(task.collective)];
      std::int64_t begin = 0;
      for (int o = 0; o < ranks; ++o)
        if (meet(call.among, r, o)) begin = std::max({begin, at(was, o), at(was_free, o)});
      at(free, r) = done[{task.collective, r}] = begin + call.picoseconds;
    }
  };
  for (std::int64_t i = 0; i < w.repeats; ++i) std::ranges::for_each(w.tasks, take);
  return clock;
}

struct Shape {
  int ranks, group;
};
constexpr std::array<Shape, 9> kShapes{
    {{1, 1}, {4, 2}, {6, 3}, {8, 1}, {8, 4}, {12, 3}, {12, 4}, {16, 8}, {24, 4}}};

Workload tiny_step(int stage, int ranks, int group, int streams) {
  TrainConfig config;
  config.zero.stage = stage;
  config.micro_batches = 2;
  config.zero.group = group;
  const ModelTrace how{1, kTinySequence, DType::f32, 0, {}};
  const CompiledStep step =
      compile_step(tiny_gpt_loss(tiny_gpt(), how), config, ranks, host_backend(1));
  Pricing pricing;
  pricing.streams = streams;
  return price(step.programs[0], 2, ranks, cluster("dgx-a100"), pricing);
}

}  // namespace

TEST_CASE("groups: every rank's clock is the naive one") {
  std::mt19937 random(51);
  for (int trial = 0; trial < 600; ++trial) {
    const auto [ranks, group] = kShapes[random() % kShapes.size()];
    const Workload w = random_workload(random, 1);
    const auto slowdowns = random_slowdowns(random, ranks, group);
    const StepTimes times = run(w, ranks_apart(slowdowns, group).classes);
    std::vector<std::int64_t> ends;
    for (const ClassTimes& rank : times.classes) ends.push_back(rank.end);
    REQUIRE(ends == naive_ends(w, slowdowns, group));
  }
}

TEST_CASE("groups: ranks kept apart have the clocks of their class, bit for bit") {
  std::mt19937 random(52);
  std::size_t collapsed = 0, apart = 0;
  for (int trial = 0; trial < 1000; ++trial) {
    const auto [ranks, group] = kShapes[random() % kShapes.size()];
    Workload w = random_workload(random, 1 + trial % 2);
    w.overlap_slowdown = random() % 2 == 0 ? 0 : 0.37;
    const auto slowdowns = random_slowdowns(random, ranks, group);
    const RankClasses few = ranks_collapsed(slowdowns, group), all = ranks_apart(slowdowns, group);
    const StepTimes times = run(w, few.classes), whole = run(w, all.classes);
    collapsed += few.classes.size();
    apart += all.classes.size();
    bool same = times.end == whole.end && times.in_flight == whole.in_flight;
    std::int64_t counted = 0;
    for (const RankClass& c : few.classes) counted += c.ranks;
    CHECK(counted == ranks);
    for (std::size_t r = 0; r < slowdowns.size(); ++r)
      same = same && whole.classes[r] == times.classes[static_cast<std::size_t>(few.class_of[r])];
    REQUIRE(same);
  }
  CHECK(2 * collapsed < apart);
}

TEST_CASE("groups: slow ranks in a long chain, each beside the next, stay apart") {
  const int group = 101, groups = 100;
  std::vector<double> slowdowns(101 * 100, 1);
  for (int g = 0; g < groups; ++g)
    for (const int position : {g, g + 1})
      slowdowns[static_cast<std::size_t>(g * group + position)] = 2;
  slowdowns[0] = 3;  // tells the first from the last, which takes a round for each between them
  const RankClasses all = ranks_collapsed(slowdowns, group);
  REQUIRE(all.classes.size() == slowdowns.size());
  bool same = true;
  for (std::size_t r = 0; r < slowdowns.size(); ++r) {
    const RankClass& rank = all.classes[static_cast<std::size_t>(all.class_of[r])];
    same = same && rank.ranks == 1 && rank.slowdown == slowdowns[r] &&
           rank.group == static_cast<int>(r) / group &&
           rank.position == static_cast<int>(r) % group;
  }
  CHECK(same);
}

TEST_CASE("groups: equal ranks keep in step, whatever groups they are in") {
  std::mt19937 random(53);
  for (int trial = 0; trial < 300; ++trial) {
    const auto [ranks, group] = kShapes[random() % kShapes.size()];
    Workload w = random_workload(random, 1 + trial % 2);
    w.overlap_slowdown = random() % 2 == 0 ? 0 : 0.37;
    const std::vector<double> slowdowns(static_cast<std::size_t>(ranks), 1.25);
    const RankClass one[] = {{ranks, 1.25}};
    const StepTimes even = run(w, one), apart = run(w, ranks_apart(slowdowns, group).classes);
    CHECK(ranks_collapsed(slowdowns, group).classes.size() == 1);
    CHECK(apart.in_flight == even.in_flight);
    CHECK(std::ranges::all_of(apart.classes, [&](const auto& c) { return c == even.classes[0]; }));
  }
}

TEST_CASE("groups: a late rank holds up others only through the sums across groups") {
  const RankClasses ranks = Stragglers("1x2", 6).classes(true, 2);
  REQUIRE(ranks.classes.size() == 4);  // late, beside it, of its position, the others
  const auto ends = [&](std::vector<Task> tasks) {
    Workload w;
    w.collectives.resize(2);
    w.collectives[0].picoseconds = 5;
    w.collectives[0].among = Among::shards;
    w.collectives[1].picoseconds = 7;
    w.collectives[1].among = Among::replicas;
    w.body_last = static_cast<int>(tasks.size());
    w.tasks = std::move(tasks);
    const StepTimes times = run(w, ranks.classes);
    std::vector<std::int64_t> result;
    for (const int c : ranks.class_of)
      result.push_back(times.classes[static_cast<std::size_t>(c)].end);
    return result;
  };
  using Ends = std::vector<std::int64_t>;
  const Task compute{Kind::compute, 10};
  const Task gather{Kind::start, 0, 0}, gathered{Kind::wait, 0, 0};
  const Task sum{Kind::start, 0, 1}, summed{Kind::wait, 0, 1};
  CHECK(ends({compute, gather, gathered}) == Ends{15, 15, 15, 15, 25, 25});
  CHECK(ends({compute, sum, summed}) == Ends{17, 27, 17, 27, 17, 27});
  CHECK(ends({compute, gather, gathered, sum, summed}) == Ends(6, 32));
}

TEST_CASE("groups: a gather and a sum across groups in flight together have half of the links") {
  const RankClasses ranks = Stragglers("", 6).classes(false, 2);
  Workload w;
  w.collectives.resize(2);
  w.collectives[0].picoseconds = 50;
  w.collectives[0].among = Among::shards;
  w.collectives[1].picoseconds = 30;
  w.collectives[1].among = Among::replicas;
  w.tasks = {{Kind::start, 0, 0}, {Kind::compute, 10}, {Kind::start, 0, 1}, {Kind::wait, 0, 1}};
  w.tasks.push_back({Kind::wait, 0, 0});
  w.body_last = 5;
  const auto waits = [&](int stream) {
    w.collectives[1].stream = stream;
    const StepTimes times = run(w, ranks.classes);
    CHECK(times.in_flight == 80);
    std::vector<std::int64_t> first;
    run(w, ranks.classes, [&](const Span& span) {
      if (span.flight && span.rank_class == 3) first.push_back(span.end);
    });
    CHECK(times.end == 80);
    return first;
  };
  CHECK(waits(0) == std::vector<std::int64_t>{80, 50});  // one after the other
  CHECK(waits(1) == std::vector<std::int64_t>{70, 80});  // 30 of work at half speed
}

TEST_CASE("groups: every total has the same bits collapsed and apart, up to 1,024 ranks") {
  for (const auto& [ranks, group] : {Shape{16, 8}, {64, 4}, {1024, 8}, {1024, 256}}) {
    for (const int stage : {1, 2, 3}) {
      const Workload work = tiny_step(stage, ranks, group, 1 + stage % 2);
      CHECK(work.group == group);
      for (const char* text : {"", "1x1.5", "11x0.75", "lognormal:0.1", "uniform:1.1:1.1001"}) {
        const Stragglers stragglers(text, ranks, 4);
        const Simulation few = simulate(work, stragglers, true, 1, 0, cluster("dgx-a100"));
        const Simulation all = simulate(work, stragglers, false, 1, 0, cluster("dgx-a100"));
        if (*text == 0) CHECK(few.classes == 1);
        if (text == std::string("1x1.5")) CHECK(few.classes == 4);
        CHECK(all.classes == ranks);
        CHECK(few.seconds_per_step == all.seconds_per_step);
        CHECK(few.exposed_communication_seconds == all.exposed_communication_seconds);
        CHECK(few.energy_joules == all.energy_joules);
        CHECK(few.communication_seconds == all.communication_seconds);
        CHECK(few.exposed == all.exposed);
        CHECK(few.critical_busy_seconds == all.critical_busy_seconds);
      }
    }
  }
}

}  // namespace ashlar::simulate
