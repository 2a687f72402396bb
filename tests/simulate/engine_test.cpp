// The clock engine against sums done by hand, and collapsed ranks against ranks kept apart.
#include "simulate/engine.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace ashlar::simulate {
namespace {

using Kind = Task::Kind;

Workload workload(std::vector<Task> tasks, std::vector<std::int64_t> collectives) {
  Workload w;
  w.body_last = static_cast<int>(tasks.size());
  w.tasks = std::move(tasks);
  for (const std::int64_t ps : collectives) {
    w.collectives.emplace_back();
    w.collectives.back().picoseconds = ps;
  }
  return w;
}

/// Up to 3 collectives in flight, in any order of waits.
Workload random_workload(std::mt19937& random) {
  std::vector<Task> tasks;
  std::vector<std::int64_t> collectives;
  std::vector<int> flying;
  for (auto n = 20 + random() % 60; n > 0; --n) {
    const auto choice = random() % 3;
    if (choice == 0 || (choice == 1 && flying.size() >= 3) || (choice == 2 && flying.empty())) {
      tasks.push_back({Kind::compute, static_cast<std::int64_t>(random() % 1000000)});
    } else if (choice == 1) {
      flying.push_back(static_cast<int>(collectives.size()));
      tasks.push_back({Kind::start, 0, flying.back()});
      collectives.push_back(static_cast<std::int64_t>(random() % 2000000));
    } else {
      const auto which = flying.begin() + static_cast<std::ptrdiff_t>(random() % flying.size());
      tasks.push_back({Kind::wait, 0, *which});
      flying.erase(which);
    }
  }
  for (const int f : flying) tasks.push_back({Kind::wait, 0, f});
  Workload w = workload(std::move(tasks), std::move(collectives));
  w.repeats = 1 + random() % 3;
  w.overlap_slowdown = random() % 2 == 0 ? 0 : 0.37;
  for (CollectiveCall& call : w.collectives) {
    call.kind = static_cast<CollectiveKind>(random() % 3);
    call.stream = static_cast<int>(random() % 2);
  }
  return w;
}

}  // namespace

TEST_CASE("engine: what is hidden and what is exposed") {
  const Workload hidden = workload({{Kind::compute, 10},
                                    {Kind::start, 0, 0},
                                    {Kind::compute, 7},
                                    {Kind::wait, 0, 0},
                                    {Kind::compute, 1}},
                                   {5});
  const RankClass one[] = {{4, 1}};
  CHECK(run(hidden, one).classes[0] == ClassTimes{18, 18, {}});
  const Workload exposed = workload({{Kind::compute, 10},
                                     {Kind::start, 0, 0},
                                     {Kind::compute, 2},
                                     {Kind::wait, 0, 0},
                                     {Kind::compute, 1}},
                                    {5});
  const StepTimes times = run(exposed, one);
  CHECK(times.classes[0] == ClassTimes{16, 13, {3, 0, 0}});
  CHECK(times.in_flight == 5);
}

TEST_CASE("engine: collectives run one after the other and wait for the slowest rank") {
  const Workload w = workload({{Kind::compute, 10},
                               {Kind::start, 0, 0},
                               {Kind::start, 0, 1},
                               {Kind::wait, 0, 0},
                               {Kind::wait, 0, 1}},
                              {5, 7});
  const RankClass ranks[] = {{3, 1}, {1, 2}};
  const StepTimes times = run(w, ranks);
  CHECK(times.classes[0] == ClassTimes{32, 10, {22, 0, 0}});
  CHECK(times.classes[1] == ClassTimes{32, 20, {12, 0, 0}});
  CHECK(times.end == 32);
}

TEST_CASE("engine: a reduction on a stream of its own shares the links with a gather") {
  Workload w = workload({{Kind::start, 0, 0},
                         {Kind::compute, 4},
                         {Kind::start, 0, 1},
                         {Kind::wait, 0, 0},
                         {Kind::wait, 0, 1}},
                        {10, 6});
  w.collectives[1].kind = CollectiveKind::reduce_scatter;
  const RankClass one[] = {{4, 1}};
  CHECK(run(w, one).classes[0] == ClassTimes{16, 4, {6, 6, 0}});
  w.collectives[1].stream = 1;
  CHECK(run(w, one).classes[0] == ClassTimes{16, 4, {12, 0, 0}});
  CHECK(run(w, one).in_flight == 16);
}

TEST_CASE(
    "engine: one collective at a time takes what it took, and two streams no less than that") {
  std::mt19937 random(14);
  for (int trial = 0; trial < 200; ++trial) {
    const Workload w = random_workload(random);
    const RankClass ranks[] = {{7, 1}, {1, 1.3}};
    const StepTimes shared = run(w, ranks);
    std::int64_t work = 0;
    for (const Task& task : w.tasks)
      if (task.kind == Kind::start)
        work += w.repeats * w.collectives[static_cast<std::size_t>(task.collective)].picoseconds;
    CHECK(shared.in_flight >= work);
    Workload alone = w;  // each is waited for where it starts
    alone.tasks.clear();
    for (const Task& task : w.tasks) {
      if (task.kind == Kind::wait) continue;
      alone.tasks.push_back(task);
      if (task.kind == Kind::start) alone.tasks.push_back({Kind::wait, 0, task.collective});
    }
    alone.body_last = static_cast<int>(alone.tasks.size());
    const StepTimes two = run(alone, ranks);
    for (CollectiveCall& call : alone.collectives) call.stream = 0;
    const StepTimes one = run(alone, ranks);
    CHECK(two.classes == one.classes);
    CHECK(two.in_flight == one.in_flight);
  }
}

TEST_CASE("engine: the body is repeated, prologue and update are not") {
  Workload w = workload({{Kind::compute, 1}, {Kind::compute, 10}, {Kind::compute, 100}}, {});
  w.body_first = 1;
  w.body_last = 2;
  w.repeats = 5;
  const RankClass one[] = {{1, 1}};
  CHECK(run(w, one).end == 151);
}

TEST_CASE("engine: kernels wait for inputs in every run of the body, collectives fly on") {
  Workload w = workload(
      {{Kind::start, 0, 0}, {Kind::copy, 40}, {Kind::compute, 100}, {Kind::wait, 0, 0}}, {1000});
  const RankClass ranks[] = {{1, 1}, {1, 2}};
  CHECK(run(w, ranks).classes[0] == ClassTimes{1000, 100, {860, 0, 0}, 40});
  w.tasks = {{Kind::copy, 40}, {Kind::compute, 100}};
  w.body_last = 2;
  w.repeats = 3;
  CHECK(run(w, ranks).classes[0] == ClassTimes{420, 300, {}, 120});
  CHECK(run(w, ranks).classes[1] == ClassTimes{720, 600, {}, 120});  // copies are not slowed down
}

TEST_CASE("engine: kernels beside a collective take longer, for as long as it flies") {
  Workload w = workload({{Kind::start, 0, 0}, {Kind::compute, 1000}, {Kind::wait, 0, 0}}, {300});
  w.overlap_slowdown = 0.5;  // 300 ps of flight do 200 ps of work
  const RankClass one[] = {{1, 1}};
  CHECK(run(w, one).end == 1100);
  w.collectives[0].picoseconds = 3000;
  CHECK(run(w, one).classes[0] == ClassTimes{3000, 1500, {1500, 0, 0}});
}

TEST_CASE("engine: ranks kept apart have the clocks of their class, bit for bit") {
  std::mt19937 random(11);
  for (const std::size_t ranks : {1U, 2U, 7U, 64U, 1024U}) {
    for (int trial = 0; trial < 20; ++trial) {
      const Workload w = random_workload(random);
      std::vector<RankClass> classes(1 + random() % 4);
      for (RankClass& c : classes) c = {0, 1 + static_cast<double>(random() % 1000) / 777.0};
      std::vector<RankClass> apart;
      std::vector<std::size_t> class_of;
      for (std::size_t r = 0; r < ranks; ++r) {
        class_of.push_back(random() % classes.size());
        ++classes[class_of.back()].ranks;
        apart.push_back({1, classes[class_of.back()].slowdown});
      }
      std::vector<RankClass> used;  // a class without ranks holds up nobody
      std::vector<std::size_t> index(classes.size());
      for (std::size_t c = 0; c < classes.size(); ++c) {
        index[c] = used.size();
        if (classes[c].ranks > 0) used.push_back(classes[c]);
      }
      const StepTimes collapsed = run(w, used), whole = run(w, apart);
      CHECK(collapsed.end == whole.end);
      CHECK(collapsed.in_flight == whole.in_flight);
      bool same = true;
      for (std::size_t r = 0; r < ranks; ++r)
        same = same && whole.classes[r] == collapsed.classes[index[class_of[r]]];
      CHECK(same);
    }
  }
}

TEST_CASE("engine: time is what a rank computes and waits, and a slower rank never speeds a step") {
  std::mt19937 random(12);
  for (int trial = 0; trial < 200; ++trial) {
    const Workload w = random_workload(random);
    const RankClass even[] = {{8, 1}};
    const RankClass late[] = {{7, 1}, {1, 1.3}};
    const StepTimes fast = run(w, even), slow = run(w, late);
    CHECK(slow.end >= fast.end);
    for (const ClassTimes& times : slow.classes) CHECK(times.end == times.busy + times.exposed());
  }
}

TEST_CASE("engine: a watcher sees every instant of a rank once, in order") {
  std::mt19937 random(13);
  const Workload w = random_workload(random);
  const RankClass ranks[] = {{1, 1}, {1, 1.5}};
  std::int64_t clock[] = {0, 0};
  const StepTimes times = run(w, ranks, [&](const Span& span) {
    if (span.flight) return;
    CHECK(span.begin == clock[span.rank_class]);
    clock[span.rank_class] = span.end;
  });
  CHECK(clock[0] == times.classes[0].end);
  CHECK(clock[1] == times.classes[1].end);
}

TEST_CASE("engine: jitter has its mean and width, and depends on the seed alone") {
  std::vector<Task> tasks(10000, {Kind::compute, 1000000});
  const Workload w = workload(std::move(tasks), {});
  const RankClass ranks[] = {{1, 1}, {1, 1}};
  const Jitter jitter{*Distribution::parse("normal:0.1"), 7};
  std::vector<double> tasks_of_0;
  const StepTimes times = run(
      w, ranks,
      [&](const Span& span) {
        if (span.rank_class == 0)
          tasks_of_0.push_back(static_cast<double>(span.end - span.begin) / 1e6);
      },
      jitter);
  double sum = 0, squares = 0;
  for (const double x : tasks_of_0) {
    sum += x;
    squares += (x - 1) * (x - 1);
  }
  CHECK(sum / 1e4 == doctest::Approx(1).epsilon(0.005));
  CHECK(std::sqrt(squares / 1e4) == doctest::Approx(0.1).epsilon(0.05));
  CHECK(times.classes[0].end != times.classes[1].end);
  CHECK(run(w, ranks, {}, jitter).classes == times.classes);
  CHECK(run(w, ranks, {}, {jitter.factor, 8}).classes != times.classes);
}

TEST_CASE("engine: each kernel of a task has jitter of its own") {
  const RankClass ranks[] = {{1, 1}, {1, 1}};
  const Jitter jitter{*Distribution::parse("lognormal:0.5"), 3};
  Workload w = workload({{Kind::compute, 10'000'000}}, {});
  const double one = static_cast<double>(run(w, ranks, {}, jitter).classes[0].end) / 1e7;
  w.step_picoseconds.assign(10'000, 1000);
  w.tasks[0].last_step = 10'000;
  const StepTimes times = run(w, ranks, {}, jitter);
  const double many = static_cast<double>(times.classes[0].end) / 1e7;
  CHECK(std::abs(one - 1) > 0.1);
  CHECK(std::abs(many - 1) < 0.02);  // a hundredth of the spread
  CHECK(times.classes[0].end != times.classes[1].end);
}

}  // namespace ashlar::simulate
