// Annealing alone: its packings, its bound, its moves, and what it adds to the solver.
#include "memory/plan/annealing.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "memory/plan/best_fit.hpp"
#include "memory/plan_problems.hpp"

using namespace ashlar;
using plan::Annealing;
using Offsets = std::vector<std::int64_t>;

namespace {

bool always(std::int64_t) { return true; }

/// The heights of what one cooling finds; each packing is checked.
std::vector<std::int64_t> heights(Annealing& annealing, const plan_problems::Problem& problem,
                                  const Offsets& start, std::int64_t bound, std::int64_t moves) {
  const plan::Problem form = plan::canonical(problem, 1);
  std::vector<std::int64_t> found;
  annealing.run(
      start, bound, moves,
      [&](const Offsets& offsets) {
        validate(problem, plan::to_plan(form, offsets), 1);
        found.push_back(plan::height_of(form, offsets));
      },
      always);
  return found;
}

}  // namespace

TEST_CASE("annealing: valid packings, each lower than the one before, the same every time") {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    CAPTURE(seed);
    const auto problem = plan_problems::random_lifetimes(40 + 30 * seed, seed);
    const plan::Problem form = plan::canonical(problem, 1);
    const Offsets start = plan::best_fit(form);
    Annealing once(form), again(form);
    for (int cooling = 0; cooling < 3; ++cooling) {
      auto found = heights(once, problem, start, form.load, 1000);
      CHECK(heights(again, problem, start, form.load, 1000) == found);
      CHECK(once.moves() <= 1000);
      found.insert(found.begin(), plan::height_of(form, start));
      CHECK(std::ranges::is_sorted(found, std::greater()));
      CHECK(found.back() >= form.load);
    }
  }
}

TEST_CASE("annealing: lowers a poor packing, and is done at the bound") {
  const auto problem = plan_problems::random_lifetimes(60, 4);
  const plan::Problem form = plan::canonical(problem, 1);
  Offsets piled;
  std::int64_t top = 0;
  for (const plan::Item& item : form.items) {
    piled.push_back(top);
    top += item.size;
  }
  Annealing annealing(form);
  const auto found = heights(annealing, problem, piled, form.load, 5000);
  REQUIRE(!found.empty());
  CHECK(found.back() * 10 < form.load * 12);
  CHECK(heights(annealing, problem, piled, found.back(), 5000).empty());
  CHECK(annealing.moves() == 0);
}

TEST_CASE("annealing: stops when it is told to; items that never meet, sizes too large to sum") {
  const auto problem = plan_problems::random_lifetimes(60, 4);
  const plan::Problem form = plan::canonical(problem, 1);
  Annealing annealing(form);
  annealing.run(
      plan::best_fit(form), 0, 5000, [](const Offsets&) {}, [](std::int64_t) { return false; });
  CHECK(annealing.moves() < 32);

  plan_problems::Problem huge = problem;
  for (PlannedBuffer& buffer : huge) buffer.size += (std::int64_t{1} << 55) + 1;
  const plan::Problem large = plan::canonical(huge, 1);
  Annealing unable(large);
  CHECK(heights(unable, huge, plan::best_fit(large), large.load, 100).empty());
  CHECK(unable.moves() == 0);

  const plan::Problem apart = plan::canonical(plan_problems::Problem{{0, 1, 3}, {1, 2, 5}}, 1);
  Annealing idle(apart);
  idle.run(
      Offsets{0, 0}, 0, 100, [](const Offsets&) { FAIL("nothing is lower"); }, always);
  CHECK(idle.moves() == 100);
}
