#include "cli/plan_search.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "ashlar/error.hpp"
#include "cli/flags/flag_values.hpp"
#include "cli/flags/step_options.hpp"
#include "ops/product/machine.hpp"
#include "sharding/compile_step.hpp"
#include "simulate/calibration.hpp"

namespace ashlar::cli {
namespace {

constexpr std::int64_t kStepTokens = std::int64_t{1} << 22;
constexpr int kTries = 40;        // Programs compiled at most,
constexpr int kTriesPerPlan = 4;  // or for each plan that is printed
constexpr int kLeanestTries = 8;  // and to find out whether a model fits at all

DType dtype_of(const PlanOptions& o) { return dtype_of_precision(o.precision); }

TrainConfig config_of(const PlanOptions& o, const planner::Candidate& c) {
  TrainConfig config;
  config.zero.stage = c.stage;
  config.zero.reshard_after_forward = c.reshard;
  config.zero.group = c.group;
  config.precision = {dtype_of(o), dtype_of(o)};
  config.micro_batches = c.accumulate;
  config.order = c.order;
  config.reduce = c.reduce_each ? ReduceWhen::each : ReduceWhen::last;
  config.recompute = c.recompute;
  config.samples = c.batch;
  return config;
}

/// The model, its problem and the device, before any candidate.
struct Question {
  LanguageModel model;
  Search found;

  explicit Question(const PlanOptions& o) : model(language_model(o.model)) {
    planner::Problem& problem = found.problem;
    problem.model = planner::shape_of(model);
    problem.ranks = o.ranks;
    problem.sequence = o.seq > 0 ? o.seq : model.positions();
    require(problem.sequence <= model.positions(), "seq", std::to_string(problem.sequence),
            fmt::format("model '{}' has {} positions", o.model, model.positions()));
    const std::int64_t per_rank = std::max<std::int64_t>(
        1, kStepTokens / problem.sequence / static_cast<std::int64_t>(o.ranks));
    problem.global_batch = o.global_batch > 0 ? o.global_batch : per_rank * o.ranks;
    problem.bf16 = size_of(dtype_of(o)) == 2;
    found.cluster = simulate::cluster_or_calibrated(o.cluster);
    problem.node = found.cluster.devices_per_node;
    found.capacity = static_cast<std::int64_t>(found.cluster.device.memory_bytes) -
                     bytes_of("reserve", o.reserve);
  }

  CompiledStep compiled(const PlanOptions& o, const planner::Candidate& c) const {
    const ModelTrace how{c.batch, found.problem.sequence, dtype_of(o), 0, {}};
    return compile_step([&](Tracer& t) { return model.loss(t, how); }, config_of(o, c), o.ranks,
                        host_backend(1));
  }
};

/// By formula: what may fit, and how long it would take.
std::vector<std::pair<double, planner::Candidate>> by_formula(Search& found) {
  const auto start = std::chrono::steady_clock::now();
  const planner::StepTime seconds(found.problem, found.cluster);
  std::vector<std::pair<double, planner::Candidate>> fitting;
  for (const planner::Candidate& c : planner::candidates(found.problem)) {
    ++found.candidates;
    const double time = seconds(c);
    if (planner::least_bytes(found.problem, c) <= found.capacity) fitting.emplace_back(time, c);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  found.candidates_per_second = static_cast<double>(found.candidates) / took.count();
  found.may_fit = std::ssize(fitting);
  return fitting;
}

/// The first kLeanestTries by bytes of the closed form.
void keep_leanest(const planner::Problem& problem,
                  std::vector<std::pair<double, planner::Candidate>>& fitting) {
  std::ranges::stable_sort(
      fitting, {}, [&](const auto& entry) { return planner::least_bytes(problem, entry.second); });
  fitting.resize(std::min<std::size_t>(fitting.size(), kLeanestTries));
}

}  // namespace

Search search(const PlanOptions& o) {
  Question question(o);
  Search& found = question.found;
  auto fitting = by_formula(found);
  std::ranges::stable_sort(fitting, {}, [](const auto& entry) { return entry.first; });
  const simulate::Stragglers none("", o.ranks);
  const auto confirm = [&](double seconds, const planner::Candidate& c) {
    ++found.compiled;
    const CompiledStep step = question.compiled(o, c);
    const std::int64_t bytes = step.planned().total;
    if (bytes > found.capacity) return;
    const auto workload = simulate::price(step.programs[0], c.accumulate, o.ranks, found.cluster);
    const double tokens = static_cast<double>(c.batch * c.accumulate * found.problem.sequence);
    found.best.push_back({c, bytes, seconds,
                          simulate::simulate(workload, none, true, tokens, bytes, found.cluster)});
  };
  const std::ptrdiff_t most =
      std::max<std::ptrdiff_t>(kTries, std::ptrdiff_t{kTriesPerPlan} * o.top);
  const std::ptrdiff_t tries = std::min(std::ssize(fitting), most);
  auto next = fitting.begin();
  for (; next - fitting.begin() < tries && std::ssize(found.best) < o.top; ++next)
    confirm(next->first, next->second);
  if (found.best.empty()) {  // the quick ones are too large: the leanest of the others
    fitting.erase(fitting.begin(), next);
    keep_leanest(found.problem, fitting);
    for (const auto& [seconds, c] : fitting)
      if (std::ssize(found.best) < o.top) confirm(seconds, c);
  }
  std::ranges::stable_sort(found.best, {},
                           [](const Confirmed& plan) { return plan.simulation.seconds_per_step; });
  return std::move(found);
}

std::string largest_model(const PlanOptions& options) {
  std::vector<std::pair<std::int64_t, std::string>> family;
  for (const std::string& name : model_presets())
    if (name.starts_with(options.largest))
      family.emplace_back(planner::shape_of(language_model(name)).parameters, name);
  require(!family.empty(), "largest", options.largest,
          fmt::format("no model is named so; {}", fmt::join(model_presets(), ", ")));
  std::ranges::sort(family, std::greater());
  for (const auto& [parameters, name] : family) {
    PlanOptions o = options;
    o.model = name;
    if (o.seq > language_model(name).positions()) continue;
    Question question(o);
    auto fitting = by_formula(question.found);
    keep_leanest(question.found.problem, fitting);
    for (const auto& [seconds, c] : fitting)
      if (question.compiled(o, c).planned().total <= question.found.capacity) return name;
  }
  throw InvalidArgument(fmt::format("--largest {}: not even {} fits; use more ranks",
                                    options.largest, family.back().second));
}

std::string_view order_name(MicroBatchOrder order) {
  return order == MicroBatchOrder::layers ? "layers" : "micro-batches";
}

std::string flags_of(const PlanOptions& o, const planner::Candidate& c) {
  const std::int64_t seq = o.seq > 0 ? o.seq : language_model(o.model).positions();
  return fmt::format(
      "--model {} --stage {} --precision {} --batch {} --seq {} --accumulate {} --order {} "
      "--reduce {} --recompute {} --reshard {} --shard-group {}",
      o.model, c.stage, o.precision, c.batch, seq, c.accumulate, order_name(c.order),
      c.reduce_each ? "each" : "last", recompute_name(c.recompute), c.reshard ? "on" : "off",
      c.group);
}

}  // namespace ashlar::cli
