// The planner on minimalloc's problems and on large seeded ones: seconds to fit the capacity,
// heights and bounds, seconds until each height was reached.
#include <CLI/CLI.hpp>
#include <iostream>
#include <limits>

#include "ashlar/memory_plan.hpp"
#include "hardware.hpp"
#include "memory/plan_problems.hpp"
#include "timing.hpp"

namespace {

using ashlar::PlanOptions;
using ashlar::PlanProgress;
using ashlar::PlanResult;
using plan_problems::Problem;
using Json = nlohmann::ordered_json;

Json measure(const Problem& problem, std::int64_t capacity, double limit) {
  const auto begin = ashlar::perf::Clock::now();
  const auto seconds = [&] { return ashlar::perf::seconds_since(begin); };
  PlanOptions options;
  options.capacity = capacity;
  options.node_limit = std::numeric_limits<std::int64_t>::max();
  std::int64_t height = 0, after_one_second = 0;
  double reached = 0;
  options.progress = [&](const PlanProgress& progress) {
    if (progress.plan.height != height) {
      height = progress.plan.height;
      reached = seconds();
      if (reached <= 1 || after_one_second == 0) after_one_second = height;
    }
    return seconds() < limit;
  };
  const PlanResult result = ashlar::solve_memory_plan(problem, options);
  const double total = seconds();
  ashlar::validate(problem, result.plan, 1);
  const auto bound = static_cast<double>(result.lower_bound);
  return {{"buffers", problem.size()},
          {"lower_bound", result.lower_bound},
          {"height", result.plan.height},
          {"proved_optimal", result.proved_optimal()},
          {"above_bound", static_cast<double>(result.plan.height) / bound},
          {"above_bound_after_1s", static_cast<double>(after_one_second) / bound},
          {"seconds_to_height", reached},
          {"seconds", total},
          {"nodes", result.nodes}};
}

void measure_minimalloc(Json& report, double limit) {
  const auto folder = plan_problems::minimalloc_folder();
  if (folder.empty()) {
    report["minimalloc"] = "skipped: no ASHLAR_DATA_DIR";
    return;
  }
  constexpr std::int64_t kCapacity = 1 << 20;
  const auto variants = [](const Problem& p) {
    return std::vector<std::pair<std::string, Problem>>{
        {"as given", p},
        {"permuted, reversed and rescaled",
         plan_problems::rescaled(plan_problems::reversed(plan_problems::permuted(p, 3)), 5, 3)}};
  };
  for (const auto& [variant, copy] : variants({})) {
    double total = 0;
    for (char name = 'A'; name <= 'K'; ++name) {
      const Problem given = plan_problems::minimalloc(folder, name);
      for (const auto& [key, problem] : variants(given)) {
        if (key != variant) continue;
        const std::int64_t unit = key == "as given" ? 1 : 3;
        Json row{{"problem", std::string(1, name)}};
        row["fit"] = measure(problem, unit * kCapacity, limit);
        total += row["fit"]["seconds"].get<double>();
        row["lowest"] = measure(problem, 0, limit);
        report["minimalloc"][key]["problems"].push_back(row);
        std::cerr << row.dump() << "\n";
      }
    }
    report["minimalloc"][variant]["seconds_to_fit_all"] = total;
  }
}

void measure_synthetic(Json& report) {
  for (const std::size_t buffers : {1000, 20'000, 60'000}) {
    const double limit = buffers == 1000 ? 1 : 60;
    for (const bool training : {true, false}) {
      const Problem problem = training ? plan_problems::training_step(buffers, 11)
                                       : plan_problems::random_lifetimes(buffers, 11);
      Json row = measure(problem, 0, limit);
      row["lifetimes"] = training ? "training step" : "random";
      report["synthetic"].push_back(row);
      std::cerr << row.dump() << "\n";
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Memory planner: heights, bounds and seconds"};
  double limit = 20;
  bool synthetic_only = false;
  app.add_option("--time-limit", limit, "seconds per problem")->capture_default_str();
  app.add_flag("--synthetic", synthetic_only, "without minimalloc's problems");
  CLI11_PARSE(app, argc, argv);
  Json report{{"hardware", hardware()}, {"time_limit", limit}};
  if (!synthetic_only) measure_minimalloc(report, limit);
  measure_synthetic(report);
  std::cout << report.dump(1) << "\n";
}
