// The lowest plan: best fit first, then searches below it, each with a node limit, in turn over
// rules, orders and capacities, with limits that grow from round to round; annealing in between.
// What is too large for that is planned around its core.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "ashlar/memory_plan.hpp"
#include "memory/plan/annealing.hpp"
#include "memory/plan/search.hpp"

namespace ashlar::plan {

class Solver {
 public:
  Solver(std::span<const PlannedBuffer> buffers, const PlanOptions& options);

  PlanResult run();

 private:
  std::vector<std::int64_t> plan_core(const std::vector<PlannedBuffer>& core);
  bool done() const;
  bool enough() const;
  bool near_bound() const;
  void accept(const std::vector<std::int64_t>& offsets);
  std::int64_t target(int attempt) const;
  void attempt(Search& search, int index);
  void anneal(Annealing& annealing);
  std::vector<int> rank(int order, double noise);
  bool report();
  std::int64_t nodes() const;

  const PlanOptions& options_;
  Problem problem_;
  std::vector<std::int64_t> load_of_;  // by item: the largest load of its sections
  std::vector<std::int64_t> offsets_;  // of the lowest plan, by item
  MemoryPlan best_;                    // that plan, in bytes
  std::int64_t height_ = 0, lower_bound_ = 0, capacity_ = 0;  // units
  std::int64_t searched_ = 0, moves_ = 0;  // nodes of searches, moves of annealing
  bool stopped_ = false;
  std::mt19937_64 random_{1};
};

}  // namespace ashlar::plan
