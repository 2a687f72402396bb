// The planner on minimalloc's problems, by node count: what it reaches does not depend on the
// machine.
#include <doctest/doctest.h>

#include "memory/plan_problems.hpp"

using namespace ashlar;
using plan_problems::Problem;

namespace {

/// ctest's memory.minimalloc says "skipped" where they are missing (ASHLAR_DATA_DIR).
const doctest::skip kWithMinimalloc(plan_problems::minimalloc_folder().empty());

PlanOptions nodes(std::int64_t limit) {
  PlanOptions options;
  options.node_limit = limit;
  return options;
}

}  // namespace

TEST_CASE("plan: minimalloc's problems fit their capacity" * kWithMinimalloc) {
  for (const char name : {'B', 'C', 'D', 'E', 'F', 'H'}) {
    CAPTURE(name);
    const Problem given = plan_problems::minimalloc(plan_problems::minimalloc_folder(), name);
    for (const Problem& problem : {given, plan_problems::reversed(given)}) {
      PlanOptions options = nodes(60'000);
      options.capacity = 1 << 20;
      const PlanResult result = solve_memory_plan(problem, options);
      validate(problem, result.plan, 1);
      CHECK(result.plan.height <= options.capacity);
    }
  }
}

TEST_CASE("plan: minimalloc's problems as low as they go, and the proof, in any guise" *
          kWithMinimalloc) {
  for (const char name : {'B', 'C', 'D', 'E', 'F', 'G', 'H'}) {
    CAPTURE(name);
    const Problem given = plan_problems::minimalloc(plan_problems::minimalloc_folder(), name);
    for (const std::int64_t unit : {1, 3}) {
      const Problem copy = plan_problems::reversed(plan_problems::permuted(given, 3));
      const Problem problem = unit == 1 ? given : plan_problems::rescaled(copy, 5, unit);
      const PlanResult result = solve_memory_plan(problem, nodes(name == 'D' ? 150'000 : 60'000));
      validate(problem, result.plan, 1);
      if (name == 'D') {
        CHECK(result.plan.height <= unit * 1'034'240);
      } else {
        CHECK(result.proved_optimal());
      }
    }
  }
}
