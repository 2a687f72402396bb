// ashlar plan: the quickest settings of a training step that fit a cluster, and what the run costs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "ashlar/memory_resource.hpp"
#include "cli/commands.hpp"
#include "cli/flags/flag_values.hpp"
#include "cli/flags/step_options.hpp"
#include "cli/plan_search.hpp"
#include "simulate/calibration.hpp"

namespace ashlar::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFooter = R"(Examples:
  ashlar plan --model llama2-7b --cluster dgx-a100 --ranks 64 --tokens 300e9 --price 2
  ashlar plan --model llama2-7b --cluster llm-foundry-calibration:a100_80gb --ranks 64
  ashlar plan --largest megatron --cluster dgx-a100 --ranks 1024 --seq 2048
)";

void require_positive(double value, std::string_view flag) {
  require(std::isfinite(value) && value >= 0 && value < 1e18, flag, fmt::format("{}", value),
          "must be a finite number, 0 or more");
}

void check(const PlanOptions& o) {
  check_ranks(o.ranks);
  require_at_least<std::int64_t>(o.seq, 0, "seq");
  require(o.seq <= std::int64_t{1} << 31, "seq", std::to_string(o.seq),
          "must be 2147483648 or less");
  require_at_least<std::int64_t>(o.global_batch, 0, "global-batch");
  require(o.global_batch % o.ranks == 0 && o.global_batch <= std::int64_t{1} << 40, "global-batch",
          std::to_string(o.global_batch),
          fmt::format("must be a multiple of the {} ranks, 2^40 at most", o.ranks));
  require_at_least(o.top, 1, "top");
  for (const auto& [flag, value] :
       {std::pair{"tokens", o.tokens}, std::pair{"price", o.price}, std::pair{"grid", o.grid},
        std::pair{"mtbf", o.mtbf_hours}, std::pair{"checkpoint", o.checkpoint_seconds}})
    require_positive(value, flag);
  refuse(o.parallelism);
}

/// Flags that another flag leaves nothing to do.
void refuse_idle(const PlanOptions& o, const CLI::App& app) {
  using Flags = std::vector<std::string_view>;
  if (o.tokens == 0) refuse(app, Flags{"--price", "--grid"}, "needs --tokens: costs are of them");
  if (o.mtbf_hours == 0) refuse(app, Flags{"--checkpoint"}, "needs --mtbf");
  if (!o.largest.empty()) refuse(app, Flags{"--model"}, "--largest picks the model; leave it out");
}

struct Bill {
  double days = 0, dollars = 0, kwh = 0, tonnes = 0, goodput = 1;
};

Bill bill_of(const PlanOptions& o, const planner::Problem& problem, const Confirmed& plan) {
  Bill bill;
  const double steps = o.tokens / static_cast<double>(problem.global_batch * problem.sequence);
  if (o.mtbf_hours > 0)
    bill.goodput = planner::goodput(o.mtbf_hours * 3600 / problem.ranks, o.checkpoint_seconds);
  if (bill.goodput <= 0)
    throw InvalidArgument(fmt::format(
        "--mtbf {}: {} ranks fail faster than a checkpoint of {} s is written; no step is left",
        o.mtbf_hours, problem.ranks, o.checkpoint_seconds));
  const double seconds = steps * plan.simulation.seconds_per_step / bill.goodput;
  bill.days = seconds / 86400;
  bill.dollars = seconds / 3600 * problem.ranks * o.price;
  bill.kwh = steps / bill.goodput * plan.simulation.energy_joules / 3.6e6;
  bill.tonnes = bill.kwh * o.grid / 1000;
  return bill;
}

Json to_json(const PlanOptions& o, const planner::Problem& problem, const Confirmed& plan,
             std::int64_t capacity) {
  const planner::Candidate& c = plan.candidate;
  const Bill bill = bill_of(o, problem, plan);
  Json json{{"stage", c.stage},
            {"batch", c.batch},
            {"accumulate", c.accumulate},
            {"order", order_name(c.order)},
            {"reduce", c.reduce_each ? "each" : "last"},
            {"recompute", recompute_name(c.recompute)},
            {"reshard", c.reshard},
            {"shard_group", c.group > 0 ? c.group : problem.ranks},
            {"least_bytes", planner::least_bytes(problem, c)},
            {"peak_bytes", plan.bytes},
            {"margin_bytes", capacity - plan.bytes},
            {"formula_seconds_per_step", plan.formula_seconds},
            {"seconds_per_step", plan.simulation.seconds_per_step},
            {"tokens_per_second_per_rank", plan.simulation.tokens_per_second_per_rank},
            {"mfu", plan.simulation.mfu},
            {"flags", flags_of(o, c)}};
  if (o.mtbf_hours > 0) json["goodput"] = bill.goodput;
  if (o.tokens > 0) json["days"] = bill.days;
  if (o.tokens > 0 && o.price > 0) json["dollars"] = bill.dollars;
  if (o.tokens > 0 && bill.kwh > 0) json["kwh"] = bill.kwh;
  if (o.tokens > 0 && o.grid > 0) json["tco2e"] = bill.tonnes;
  return json;
}

void print(const PlanOptions& o, const Search& search) {
  const planner::Problem& problem = search.problem;
  fmt::print(
      "{}: {} parameters on {} ranks of {}, {} sequences of {} tokens per step\n"
      "{} candidates, {} of them may fit in {} by formula, {} compiled ({:.3g} candidates per "
      "second)\n",
      o.model, problem.model.parameters, problem.ranks, search.cluster.name, problem.global_batch,
      problem.sequence, search.candidates, search.may_fit, format_bytes(search.capacity),
      search.compiled, search.candidates_per_second);
  for (const Confirmed& plan : search.best) {
    const Bill bill = bill_of(o, problem, plan);
    fmt::print("{:>10.3f} s/step  {:>11}  MFU {:4.1f} %", plan.simulation.seconds_per_step,
               format_bytes(plan.bytes), 100 * plan.simulation.mfu);
    if (o.tokens > 0) fmt::print("  {:.1f} days", bill.days);
    if (o.tokens > 0 && o.price > 0) fmt::print("  ${:.0f}", bill.dollars);
    if (o.tokens > 0 && bill.kwh > 0) fmt::print("  {:.0f} kWh", bill.kwh);
    if (o.tokens > 0 && o.grid > 0) fmt::print("  {:.1f} tCO2e", bill.tonnes);
    const char* program = o.precision == "fp16" ? "ashlar report" : "train_gpt";
    fmt::print("\n            {} {}\n", program, flags_of(o, plan.candidate));
  }
  if (o.mtbf_hours > 0 && !search.best.empty())
    fmt::print("days and costs at a goodput of {:.1f} %\n",
               100 * bill_of(o, problem, search.best[0]).goodput);
  if (!search.cluster.gpu.empty() && o.cluster.find(':') == std::string::npos)
    fmt::print(
        "seconds are those of the quickest kernels known; --cluster llm-foundry-calibration:GPU "
        "has FSDP's (a100_40gb, a100_80gb, h100_80gb)\n");
  if (search.best.empty()) fmt::print("nothing fits: use more ranks or a smaller model\n");
}

int run(PlanOptions o) {
  check(o);
  if (!o.largest.empty()) o.model = largest_model(o);
  const Search found = search(o);
  if (o.json) {
    Json plans = Json::array();
    for (const Confirmed& plan : found.best)
      plans.push_back(to_json(o, found.problem, plan, found.capacity));
    fmt::print("{}\n", Json{{"model", o.model},
                            {"parameters", found.problem.model.parameters},
                            {"cluster", found.cluster.name},
                            {"ranks", o.ranks},
                            {"global_batch", found.problem.global_batch},
                            {"device_bytes", found.capacity},
                            {"candidates", found.candidates},
                            {"may_fit", found.may_fit},
                            {"compiled", found.compiled},
                            {"candidates_per_second", found.candidates_per_second},
                            {"plans", plans}}
                           .dump(2));
  } else {
    print(o, found);
  }
  return found.best.empty() ? 1 : 0;
}

}  // namespace

void add_plan(CLI::App& app, Command& command) {
  const auto options = std::make_shared<PlanOptions>();
  PlanOptions& o = *options;
  CLI::App& sub =
      *app.add_subcommand("plan", "The quickest settings that fit a cluster, and what they cost");
  sub.add_option("--model", o.model, "a name, or a config.json")->capture_default_str();
  sub.add_option("--largest", o.largest, "of a family that fits: gpt3, megatron, mpt, llama2");
  show_words(*sub.add_option("--cluster", o.cluster, "who trains")->capture_default_str(),
             simulate::cluster_names(), "FILE");
  add_integer(sub, "--ranks", o.ranks, "devices that train")->capture_default_str();
  add_integer(sub, "--seq", o.seq, "tokens per sequence (the model's positions)");
  add_integer(sub, "--global-batch", o.global_batch, "sequences per step (about 4 Mi tokens)");
  add_choice(sub, "--precision", o.precision, precision_names(), "fp16: not to train")
      ->capture_default_str();
  sub.add_option("--reserve", o.reserve, "bytes of a device for others")->capture_default_str();
  sub.add_option("--tokens", o.tokens, "to train on: days and costs are of them");
  sub.add_option("--price", o.price, "dollars per device and hour");
  sub.add_option("--grid", o.grid, "kg of CO2e per kWh");
  sub.add_option("--mtbf", o.mtbf_hours, "hours between failures of one device");
  sub.add_option("--checkpoint", o.checkpoint_seconds, "seconds that one takes")
      ->capture_default_str();
  add_integer(sub, "--top", o.top, "plans to print")->capture_default_str();
  sub.add_flag("--json", o.json, "print JSON");
  add_unsupported(sub, o.parallelism);
  sub.footer(std::string(kFooter) + kUnsupported);
  sub.callback([options, &sub, &command] {
    command = [options, &sub] {
      refuse_idle(*options, sub);
      return run(*options);
    };
  });
}

}  // namespace ashlar::cli
