// The planner against a brute force, its own bound, copies of problems, and minimalloc's problems.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "ashlar/error.hpp"
#include "memory/plan_problems.hpp"

using namespace ashlar;
using plan_problems::Problem;
using plan_problems::uniform;

namespace {

bool together(const PlannedBuffer& a, const PlannedBuffer& b) {
  return a.lower < b.upper && b.lower < a.upper;
}

/// Tries every offset of every buffer.
bool fits(const Problem& problem, std::vector<std::int64_t>& offsets, std::int64_t capacity) {
  const std::size_t i = offsets.size();
  if (i == problem.size()) return true;
  for (std::int64_t offset = 0; offset + problem[i].size <= capacity; ++offset) {
    bool clear = true;
    for (std::size_t j = 0; clear && j < i; ++j)
      clear = !together(problem[i], problem[j]) || offset >= offsets[j] + problem[j].size ||
              offsets[j] >= offset + problem[i].size;
    if (!clear) continue;
    offsets.push_back(offset);
    if (fits(problem, offsets, capacity)) return true;
    offsets.pop_back();
  }
  return false;
}

std::int64_t brute_force(Problem problem) {
  std::ranges::sort(problem, {}, &PlannedBuffer::lower);
  for (std::int64_t capacity = maximum_load(problem);; ++capacity) {
    std::vector<std::int64_t> offsets;
    if (fits(problem, offsets, capacity)) return capacity;
  }
}

Problem tiny(std::uint64_t seed, std::int64_t buffers) {
  std::mt19937_64 random(seed);
  Problem problem;
  for (; buffers > 0; --buffers) {
    const std::int64_t lower = uniform(random, 0, buffers);
    problem.push_back({lower, lower + uniform(random, 1, 6), uniform(random, 1, 4)});
  }
  return problem;
}

/// Buffers as long as the load keeps within `capacity`: hardly any room is left.
Problem dense(std::uint64_t seed, std::int64_t instants, std::int64_t capacity) {
  std::mt19937_64 random(seed);
  Problem problem;
  for (int tries = 0; tries < 200; ++tries) {
    const std::int64_t lower = uniform(random, 0, instants - 1);
    const std::int64_t upper = std::min(lower + uniform(random, 1, 12), instants);
    problem.push_back({lower, upper, uniform(random, 1, 5)});
    if (maximum_load(problem) > capacity) problem.pop_back();
  }
  return problem;
}

PlanOptions nodes(std::int64_t limit) {
  PlanOptions options;
  options.node_limit = limit;
  return options;
}

std::vector<Problem> samples() {
  std::vector<Problem> all;
  for (const std::size_t size : {1, 2, 17, 150, 600}) {
    all.push_back(plan_problems::random_lifetimes(size, size));
    all.push_back(plan_problems::training_step(size, size));
  }
  return all;
}

}  // namespace

TEST_CASE("plan: the optimum of small problems, and its proof") {
  int above_load = 0, searched = 0;
  for (std::uint64_t seed = 1; seed <= 800; ++seed) {
    CAPTURE(seed);
    const Problem problem = dense(seed, 20, 7);
    if (solve_memory_plan(problem, nodes(0)).proved_optimal()) continue;  // by best fit
    ++searched;
    const PlanResult result = solve_memory_plan(problem, nodes(100'000));
    validate(problem, result.plan, 1);
    const std::int64_t optimum = brute_force(problem);
    CHECK(result.plan.height == optimum);
    CHECK(result.lower_bound == optimum);
    above_load += optimum > maximum_load(problem) ? 1 : 0;
  }
  CHECK(searched > 200);
  CHECK(above_load >= 5);
}

TEST_CASE("plan: valid, never below the load, aligned") {
  for (const Problem& problem : samples())
    for (const std::int64_t alignment : {1, 64, 100}) {
      PlanOptions options = nodes(2000);
      options.alignment = alignment;
      const PlanResult result = solve_memory_plan(problem, options);
      validate(problem, result.plan, alignment);
      CHECK(result.plan.height >= result.lower_bound);
      CHECK(result.lower_bound >= maximum_load(problem));
      CHECK(result.nodes <= options.node_limit + 16);
      const MemoryPlan compiled = plan_memory(problem, alignment);
      validate(problem, compiled, alignment);
    }
}

TEST_CASE("plan: heights fall, bounds rise, every incumbent is valid, the callback stops") {
  const Problem problem = plan_problems::random_lifetimes(120, 5);
  std::int64_t height = std::numeric_limits<std::int64_t>::max(), bound = 0, calls = 0;
  PlanOptions options = nodes(30'000);
  options.progress = [&](const PlanProgress& progress) {
    validate(problem, progress.plan, 1);
    CHECK(progress.plan.height <= height);
    CHECK(progress.lower_bound >= bound);
    CHECK(progress.lower_bound <= progress.plan.height);
    height = progress.plan.height;
    bound = progress.lower_bound;
    return ++calls < 20;
  };
  const PlanResult result = solve_memory_plan(problem, options);
  CHECK(calls <= 20);
  CHECK(result.plan.height == height);
}

TEST_CASE("plan: equal for equal problems, whatever their order, direction and units") {
  for (const Problem& problem : samples()) {
    const PlanResult given = solve_memory_plan(problem, nodes(3000));
    CHECK(solve_memory_plan(problem, nodes(3000)).plan.offsets == given.plan.offsets);
    const Problem copy =
        plan_problems::rescaled(plan_problems::reversed(plan_problems::permuted(problem, 2)), 3, 7);
    const PlanResult other = solve_memory_plan(copy, nodes(3000));
    CHECK(other.plan.height == 7 * given.plan.height);
    CHECK(other.lower_bound == 7 * given.lower_bound);
    CHECK(other.nodes == given.nodes);
  }
}

TEST_CASE("plan: nothing to place, and input that cannot be placed") {
  CHECK(solve_memory_plan({}).plan.height == 0);
  const Problem empty{{0, 5, 0}, {3, 3, 8}};
  CHECK(solve_memory_plan(empty).plan.height == 0);
  CHECK_THROWS_AS(solve_memory_plan(Problem{{0, 1, -4}}), InvalidArgument);
  CHECK_THROWS_AS(solve_memory_plan(Problem{{0, 1, 1LL << 62}, {2, 3, 1}}), InvalidArgument);
  CHECK_THROWS_AS(plan_memory(empty, 0), InvalidArgument);
}

TEST_CASE("plan: a capacity stops the search, or is proved too small") {
  const Problem problem{{0, 3, 4}, {3, 9, 4}, {0, 9, 4}, {9, 21, 4}, {0, 21, 4}};
  PlanOptions options;
  options.capacity = 12;
  CHECK(solve_memory_plan(problem, options).plan.height == 12);
  options.capacity = 11;
  CHECK(solve_memory_plan(problem, options).lower_bound == 12);
}

TEST_CASE("plan: the validator finds each overlap") {
  std::mt19937_64 random(9);
  int valid = 0;
  for (int round = 0; round < 3000; ++round) {
    const Problem problem = tiny(static_cast<std::uint64_t>(round), 1 + round % 5);
    MemoryPlan plan{{}, 40};
    for (std::size_t i = 0; i < problem.size(); ++i) plan.offsets.push_back(uniform(random, 0, 31));
    bool overlap = false;
    for (std::size_t a = 0; a < problem.size(); ++a)
      for (std::size_t b = 0; b < a; ++b)
        overlap |= together(problem[a], problem[b]) &&
                   plan.offsets[a] < plan.offsets[b] + problem[b].size &&
                   plan.offsets[b] < plan.offsets[a] + problem[a].size;
    if (overlap) {
      CHECK_THROWS_AS(validate(problem, plan, 1), Error);
    } else {
      CHECK_NOTHROW(validate(problem, plan, 1));
      ++valid;
    }
  }
  CHECK(valid > 300);
  CHECK_THROWS_AS(validate(Problem{{0, 1, 8}}, {{-1}, 8}, 1), Error);
  CHECK_THROWS_AS(validate(Problem{{0, 1, 8}}, {{1}, 8}, 1), Error);
  CHECK_THROWS_AS(validate(Problem{{0, 1, 8}}, {{4}, 16}, 8), Error);
  CHECK_THROWS_AS(validate(Problem{{0, 1, 8}}, {{}, 16}, 8), Error);
}

TEST_CASE("plan: gaps take further buffers, the plan stays") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const Problem all = plan_problems::random_lifetimes(80, seed);
    const Problem first(all.begin(), all.begin() + 40);
    const MemoryPlan fixed = plan_memory(first, 64);
    const MemoryPlan filled = fill_gaps(all, fixed, 64);
    CHECK(filled.height == fixed.height);
    CHECK(std::equal(fixed.offsets.begin(), fixed.offsets.end(), filled.offsets.begin()));
    Problem inside;
    MemoryPlan kept{{}, fixed.height};
    for (std::size_t i = 0; i < all.size(); ++i)
      if (filled.offsets[i] >= 0) {
        inside.push_back(all[i]);
        kept.offsets.push_back(filled.offsets[i]);
      }
    validate(inside, kept, 64);
    CHECK(inside.size() > first.size());
  }
}

TEST_CASE("plan: large problems come close to their load") {
  const struct {
    Problem (*make)(std::size_t, std::uint64_t);
    std::int64_t nodes;
  } cases[] = {{plan_problems::training_step, 20'000},
               {plan_problems::random_lifetimes, 20'000},
               {plan_problems::short_lifetimes, 100'000}};
  for (const auto& [make, nodes] : cases) {
    const Problem problem = make(10'000, 3);
    PlanOptions options;
    options.node_limit = nodes;
    const PlanResult result = solve_memory_plan(problem, options);
    validate(problem, result.plan, 1);
    CHECK(static_cast<double>(result.plan.height) <=
          1.05 * static_cast<double>(maximum_load(problem)));
  }
}
