// The planner's search: all candidates by formula, the best by their Programs.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/flags/flag_values.hpp"
#include "report/planner.hpp"
#include "simulate/simulation.hpp"

namespace ashlar::cli {

struct PlanOptions {
  std::string model = "gpt2", largest, cluster = "dgx-a100", precision = "bf16", reserve = "0";
  int ranks = 8, top = 10;
  OtherParallelism parallelism;
  std::int64_t seq = 0;           // 0: the model's positions
  std::int64_t global_batch = 0;  // sequences; 0: about 4 Mi tokens
  double tokens = 0, price = 0, grid = 0, mtbf_hours = 0, checkpoint_seconds = 60;
  bool json = false;
};

/// A candidate whose Program fits.
struct Confirmed {
  planner::Candidate candidate;
  std::int64_t bytes = 0;      // of a rank, exactly
  double formula_seconds = 0;  // of the closed form, per step
  simulate::Simulation simulation;
};

struct Search {
  planner::Problem problem;
  simulate::Cluster cluster;
  std::int64_t capacity = 0;  // bytes of a device that may be used
  std::int64_t candidates = 0, may_fit = 0, compiled = 0;
  double candidates_per_second = 0;  // of formulas, one core
  std::vector<Confirmed> best;       // quickest first
};

/// @throws InvalidArgument for a model or cluster that is none.
Search search(const PlanOptions& options);

/// The largest preset whose name begins so and of which some candidate's Program fits.
/// @throws InvalidArgument when there is no such family, or none of it fits.
std::string largest_model(const PlanOptions& options);

/// What train_gpt takes to run it.
std::string flags_of(const PlanOptions& options, const planner::Candidate& candidate);
std::string_view order_name(MicroBatchOrder order);

}  // namespace ashlar::cli
