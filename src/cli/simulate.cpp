// ashlar simulate: seconds, bytes and joules of a training step on a cluster that need not exist.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "ashlar/error.hpp"
#include "ashlar/nn/language_model.hpp"
#include "base/parse_number.hpp"
#include "base/printable.hpp"
#include "cli/commands.hpp"
#include "cli/flags/flag_values.hpp"
#include "cli/flags/seat.hpp"
#include "cli/flags/step_options.hpp"
#include "cli/output.hpp"
#include "cli/simulate_text.hpp"
#include "cli/sweep.hpp"
#include "ops/product/machine.hpp"
#include "simulate/calibration.hpp"
#include "simulate/chrome_trace.hpp"

namespace ashlar::cli {
namespace {

using namespace simulate;

struct Options {
  StepOptions step;
  std::string cluster = "dgx-a100", stragglers, jitter, collective = "auto", trace, sweep, csv, svg;
  std::vector<int> trace_ranks{0};
  int ranks = 8, streams = 1;
  std::uint64_t seed = 0;
  OtherParallelism parallelism;
  bool no_collapse = false, json = false;
};

/// A step compiled and priced for a number of ranks.
struct Priced {
  CompiledStep compiled;
  Workload workload;
  std::int64_t peak_bytes;
};

class Simulator {
 public:
  explicit Simulator(const Options& options)
      : options_(options),
        model_(language_model(options.step.model)),
        cluster_(simulate::cluster_or_calibrated(options.cluster)) {
    pricing_.algorithm = algorithm_of(options.collective);
    require(options.streams == 1 || options.streams == 2, "comm-streams",
            std::to_string(options.streams), "must be 1 or 2");
    pricing_.streams = options.streams;
    jitter_ = {jitter_of(options.jitter), options.seed};
  }

  int run() const {
    refuse_idle_seed();
    if (!options_.sweep.empty()) return sweep();
    const Priced priced = price(options_.ranks);
    const Stragglers stragglers(options_.stragglers, options_.ranks, options_.seed);
    const Simulation result = simulate(priced, stragglers);
    if (!options_.trace.empty()) trace(priced, stragglers);
    fmt::print("{}", options_.json ? json(result).dump() + "\n"
                                   : simulation_text(result, model_.name(), cluster_) + noise());
    return 0;
  }

 private:
  void refuse_idle_seed() const {
    const bool draws = jitter_.factor.varies() || Distribution::parse(options_.stragglers);
    if (!draws && options_.seed != 0)
      throw InvalidArgument("--seed is of --jitter and of --stragglers by a distribution");
  }

  static Distribution jitter_of(const std::string& text) {
    if (text.empty()) return {};
    double deviation = 0;
    const bool plain = parse_number(text, deviation);
    if (const auto named = Distribution::parse(plain ? "normal:" + text : text)) return *named;
    throw InvalidArgument(printable(
        fmt::format("--jitter {:.60}: give normal:S (or S alone), lognormal:S, uniform:LOW:HIGH or "
                    "exponential:MEAN",
                    text)));
  }

  /// What was drawn, for what a reader would take for exact.
  nlohmann::ordered_json json(const Simulation& result) const {
    nlohmann::ordered_json json = simulation_json(result);
    if (!options_.stragglers.empty()) json["stragglers"] = printable(options_.stragglers);
    if (jitter_.factor.varies()) json["jitter"] = options_.jitter;
    if (options_.seed != 0) json["seed"] = options_.seed;
    return json;
  }

  std::string noise() const {
    std::string text;
    if (Distribution::parse(options_.stragglers))
      text += fmt::format("stragglers {}, seed {}\n", options_.stragglers, options_.seed);
    if (jitter_.factor.varies())
      text += fmt::format("jitter {} per kernel, seed {}: each rank is a class of its own\n",
                          options_.jitter, options_.seed);
    return text;
  }

  Priced price(int ranks) const {
    require_groups(options_.step, ranks);
    const StepOptions& o = options_.step;
    const ModelTrace how = model_trace(o, o.batch, o.dropout);
    TrainConfig config = step_config(o);
    if (config.threads == 0) config.threads = default_threads(ranks);
    CompiledStep compiled = compile_step([&](Tracer& t) { return model_.loss(t, how); }, config,
                                         ranks, host_backend(config.threads));
    require_frozen(o, compiled.layout.parameters());
    Workload workload =
        simulate::price(compiled.programs[0], o.accumulate, ranks, cluster_, pricing_);
    const std::int64_t peak = compiled.planned().total;
    return {std::move(compiled), std::move(workload), peak};
  }

  Simulation simulate(const Priced& priced, const Stragglers& stragglers) const {
    const StepOptions& o = options_.step;
    const double tokens = static_cast<double>(o.batch) * static_cast<double>(o.seq) *
                          static_cast<double>(o.accumulate);
    return simulate::simulate(priced.workload, stragglers, !options_.no_collapse, tokens,
                              priced.peak_bytes, cluster_, jitter_);
  }

  void trace(const Priced& priced, const Stragglers& stragglers) const {
    const bool collapse = !options_.no_collapse && !jitter_.factor.varies();
    const RankClasses ranks = stragglers.classes(collapse, priced.workload.group);
    std::vector<int> shown;
    for (const int rank : options_.trace_ranks) {
      if (rank < 0 || rank >= options_.ranks)
        throw InvalidArgument(
            fmt::format("--trace-ranks {}: ranks are 0 to {}", rank, options_.ranks - 1));
      const int c = ranks.class_of[static_cast<std::size_t>(rank)];
      if (std::ranges::find(shown, c) == shown.end()) shown.push_back(c);
    }
    write_file(options_.trace, [&](std::ostream& out) {
      write_chrome_trace(out, priced.compiled.programs[0], priced.workload, ranks.classes, shown,
                         jitter_);
    });
  }

  int sweep() const {
    std::vector<Simulation> points;
    const std::vector<int> worlds = sweep_ranks(options_.sweep, cluster_.devices_per_node);
    check_ranks(worlds.back());
    for (const int ranks : worlds) {
      const Stragglers stragglers(options_.stragglers, ranks, options_.seed);
      points.push_back(simulate(price(ranks), stragglers));
    }
    const std::string csv = sweep_csv(points);
    if (!options_.csv.empty()) write_file(options_.csv, [&](std::ostream& out) { out << csv; });
    if (!options_.svg.empty()) {
      write_file(options_.svg, [&](std::ostream& out) {
        out << sweep_svg(points, fmt::format("{} on {}, ZeRO stage {}", model_.name(),
                                             cluster_.name, options_.step.stage));
      });
    }
    if (options_.json) {
      nlohmann::ordered_json all = nlohmann::ordered_json::array();
      for (const Simulation& point : points) all.push_back(json(point));
      fmt::print("{}\n", all.dump());
    } else {
      fmt::print("{}", csv);
    }
    return 0;
  }

  const Options& options_;
  LanguageModel model_;
  Cluster cluster_;
  Pricing pricing_;
  Jitter jitter_;
};

/// Flags that another flag leaves nothing to do.
void refuse_idle(const Options& o, const CLI::App& app) {
  using Flags = std::vector<std::string_view>;
  if (o.sweep.empty())
    refuse(app, Flags{"--csv", "--svg"}, "is of a --sweep");
  else
    refuse(app, Flags{"--trace", "--ranks"}, "is of one run, not of a --sweep");
  if (o.trace.empty()) refuse(app, Flags{"--trace-ranks"}, "is of a --trace");
}

}  // namespace

void add_simulate(CLI::App& app, cli::Command& command) {
  const auto options = std::make_shared<Options>();
  CLI::App& sub = *app.add_subcommand(
      "simulate", "Seconds, bytes and joules of a training step on a cluster that need not exist");
  const auto flags = std::make_shared<StepFlags>(sub, options->step);
  CLI::Option& cluster = *sub.add_option("--cluster", options->cluster,
                                         "files: src/simulate/clusters/cluster.schema.json");
  show_words(*cluster.capture_default_str(), simulate::cluster_names(), "FILE");
  add_integer(sub, "--ranks", options->ranks, "devices that train")->capture_default_str();
  sub.add_option("--stragglers", options->stragglers,
                 "how much longer ranks take: COUNTxFACTOR; a distribution (normal:S, lognormal:S, "
                 "uniform:LOW:HIGH, exponential:MEAN); or a file, a factor per line");
  sub.add_option("--jitter", options->jitter,
                 "how much longer each kernel takes: a distribution, or S for normal:S; each rank "
                 "then has a clock");
  add_integer(sub, "--seed", options->seed, "of what is drawn")->capture_default_str();
  sub.add_flag("--no-collapse", options->no_collapse, "a clock for each rank: the same numbers");
  const auto algorithms = algorithm_names();
  show_words(*sub.add_option("--collective", options->collective, "how gathers and sums travel")
                  ->capture_default_str(),
             {algorithms.begin(), algorithms.end()});
  show_words(*add_integer(sub, "--comm-streams", options->streams,
                          "2: reductions fly beside gathers and share the links with them")
                  ->capture_default_str(),
             {"1", "2"});
  sub.add_option("--trace", options->trace, "a file for chrome://tracing or Perfetto");
  sub.add_option("--trace-ranks", options->trace_ranks, "whose streams it shows")
      ->delimiter(',')
      ->capture_default_str();
  sub.add_option("--sweep", options->sweep, "ranks=FIRST..LAST: doubling, as CSV");
  sub.add_option("--csv", options->csv, "where the sweep's CSV goes too");
  sub.add_option("--svg", options->svg, "a scaling plot of the sweep");
  sub.add_flag("--json", options->json, "print JSON");
  add_unsupported(sub, options->parallelism);
  sub.footer(
      std::string("Example: ashlar simulate --model megatron-1t --cluster dgx-a100 --ranks 1024 "
                  "--stage 3 --precision bf16 --batch 1 --seq 2048\n") +
      kUnsupported);
  sub.callback([options, flags, &sub, &command] {
    command = [options, flags, &sub] {
      flags->fill_in();
      check(options->step);
      check_ranks(options->ranks);
      refuse(options->parallelism);
      refuse_idle(*options, sub);
      return Simulator(*options).run();
    };
  });
}

}  // namespace ashlar::cli
