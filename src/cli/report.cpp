// ashlar report: what a rank needs for a training step, without running it.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <set>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "cli/commands.hpp"
#include "cli/flags/flag_values.hpp"
#include "cli/report_step.hpp"

namespace ashlar::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMostParameters = 1e17;  // times 16 bytes: still 63 bits

constexpr const char* kFooter = R"(Examples:
  ashlar report --model gpt2-xl --ranks 8 --stage 3 --precision bf16 --seq 1024 --html report.html
  ashlar report --model megatron-1t --ranks 1024 --all-stages --precision bf16 --seq 2048 --batch 1
  ashlar report --params 7.5e9 --ranks 64 --all-stages --precision bf16
)";

ZeroCase closed_form(const ReportOptions& o, int stage) {
  ZeroCase zero;
  zero.trainable = zero.padded = zero.padded_trainable = static_cast<std::int64_t>(o.parameters);
  zero.ranks = o.shard_group > 0 ? o.shard_group : o.ranks;
  zero.replicas = o.ranks / zero.ranks;
  zero.stage = stage;
  zero.bf16 = size_of(dtype_of_precision(o.precision)) == 2;
  zero.bf16_wire = size_of(dtype_of_precision(o.reduce_dtype)) == 2;
  zero.accumulate = o.accumulate;
  zero.reduce_each = o.reduce == "each";
  zero.layer_order = o.order == "layers";
  zero.reshard = o.reshard;
  zero.optimizer_states = o.optimizer == "adamw" ? 2 : o.optimizer == "momentum" ? 1 : 0;
  return zero;
}

/// Options of each stage that is asked for; what depends on the stage anew.
std::vector<ReportOptions> by_stage(const ReportOptions& options, const StepFlags& flags) {
  std::vector<ReportOptions> all;
  for (int stage = 0; stage <= 3; ++stage) {
    if (!options.all_stages && stage != options.stage) continue;
    ReportOptions o = options;
    o.stage = stage;
    if (!flags.given("--reduce")) o.reduce = stage >= 2 && o.order != "layers" ? "each" : "last";
    all.push_back(o);
  }
  return all;
}

int report_closed_form(const std::vector<ReportOptions>& stages) {
  Json list = Json::array();
  std::string text =
      fmt::format("{:.6g} parameters, {} rank(s), {}: model state of a rank\n",
                  stages.front().parameters, stages.front().ranks, stages.front().precision);
  text += fmt::format("{:<10}{:>16}{:>16}{:>18}{:>16}{:>20}\n", "", "parameter", "gradient",
                      "optimizer state", "sum", "sent per step");
  for (const ReportOptions& o : stages) {
    const ZeroCase zero = closed_form(o, o.stage);
    const ModelStateBytes bytes = state_formula(zero);
    const TrafficFormula sent = traffic_formula(zero);
    list.push_back({{"parameters", zero.trainable},
                    {"ranks", o.ranks},
                    {"shard_group", zero.ranks},
                    {"stage", o.stage},
                    {"precision", o.precision},
                    {"model_state_bytes", to_json(bytes)},
                    {"sent_bytes",
                     {{"all_gather", sent.all_gather},
                      {"reduce_scatter", sent.reduce_scatter},
                      {"all_reduce", sent.all_reduce}}}});
    text += fmt::format("stage {:<4}{:>16}{:>16}{:>18}{:>16}{:>20}\n", o.stage,
                        format_bytes(bytes.parameter), format_bytes(bytes.gradient),
                        format_bytes(bytes.optimizer_state), format_bytes(bytes.sum()),
                        format_bytes(sent.sum()));
  }
  text += "activations, buffers and padding come on top: give --model to have them counted\n";
  const bool array = stages.front().all_stages;
  fmt::print("{}", stages.front().json ? (array ? list : list[0]).dump(2) + "\n" : text);
  return 0;
}

struct Verdict {
  bool fits = false;
  std::int64_t margin = 0;
  std::optional<std::int64_t> largest;
};

Verdict judge(const ReportOptions& o, const StepReport& report) {
  const std::int64_t device = bytes_of("device-memory", o.device_memory);
  const std::int64_t usable = device - bytes_of("reserve", o.reserve);
  Verdict verdict;
  verdict.margin = usable - report.footprint.peak.total;
  verdict.fits = verdict.margin >= 0;
  verdict.largest = largest_batch(o, usable);
  return verdict;
}

Json to_json(const Verdict& verdict) {
  return {{"fits", verdict.fits},
          {"margin_bytes", verdict.margin},
          {"largest_batch", verdict.largest ? Json(*verdict.largest) : Json(nullptr)}};
}

std::string to_text(const Verdict& verdict, const ReportOptions& o) {
  const std::string largest =
      verdict.largest ? fmt::format("the largest --batch that does is {}", *verdict.largest)
                      : std::string("not even --batch 1 does");
  return fmt::format("stage {}: {} in {}, {} of them reserved: {} {}; {}\n", o.stage,
                     verdict.fits ? "fits" : "does not fit", o.device_memory, o.reserve,
                     format_bytes(std::abs(verdict.margin)), verdict.fits ? "to spare" : "short",
                     largest);
}

/// Other stages and ranks for the sliders of the page.
PageGrid grid_of(const ReportOptions& options, const StepFlags& flags) {
  if (options.recompute == "budget") return {};  // a search each, and some find nothing
  std::set<int> worlds{1, 2, 4, 8, 16, 64, 256, 1024};
  worlds.insert(options.ranks);
  PageGrid grid;
  ReportOptions every = options;
  every.all_stages = true;
  for (const ReportOptions& stage : by_stage(every, flags))
    for (const int ranks : worlds) {
      ReportOptions o = stage;
      o.ranks = ranks;
      o.ranks_per_node = 0;
      if (o.shard_group > 0 && ranks % o.shard_group != 0) continue;
      const CompiledStep step = compiled(o);
      grid.reports.push_back(reported(o, step));
      if (ranks == options.ranks) grid.timelines.emplace_back(o.stage, planned_trace(step));
    }
  return grid;
}

ShareBy share_by(const std::string& name) {
  return name == "unit" ? ShareBy::unit : name == "module" ? ShareBy::module : ShareBy::op;
}

/// Everything that needs the step itself, one stage at a time.
int report_steps(const std::vector<ReportOptions>& stages, const StepFlags& flags) {
  const ReportOptions& first = stages.front();
  std::vector<StepReport> reports;
  Json list = Json::array();
  std::string after;
  bool fits = true, equal = true;
  for (const ReportOptions& o : stages) {
    const CompiledStep step = compiled(o);
    const StepReport& report = reports.emplace_back(reported(o, step));
    Json json = to_json(report);
    if (!o.by.empty()) {
      const auto list_of = shares(step, report.footprint, share_by(o.by));
      for (const Share& share : list_of) json["by"][share.name] = share.bytes;
      after += fmt::format("at the peak by {}\n{}", o.by, ashlar::to_text(list_of));
    }
    if (!o.device_memory.empty()) {
      const Verdict verdict = judge(o, report);
      json["device"] = to_json(verdict);
      after += to_text(verdict, o);
      fits = fits && verdict.fits;
    }
    if (!o.snapshot.empty()) write_planned_snapshot(step, o.snapshot);
    if (!o.html.empty()) write_html(report, step, grid_of(o, flags), o.html);
    list.push_back(std::move(json));
  }
  if (first.json) {
    fmt::print("{}\n", (first.all_stages ? list : list[0]).dump(2));
  } else if (first.markdown) {
    fmt::print("{}{}", to_markdown(reports), after);
  } else {
    fmt::print("{}{}", reports.size() == 1 ? ashlar::to_text(reports[0]) : ashlar::to_text(reports),
               after);
  }
  for (std::size_t i = 0; first.measure && i < stages.size(); ++i)
    equal = measure(stages[i], reports[i]) && equal;
  return fits && equal ? 0 : 1;
}

using Flags = std::vector<std::string_view>;

/// Each form of a report has flags of its own; no other is taken and then ignored.
void refuse_idle(const ReportOptions& o, const CLI::App& app) {
  const bool closed = app.count("--params") > 0, compat = !o.compat.empty();
  if (closed && compat)
    refuse_others(app,
                  Flags{"--params", "--compat", "--largest-layer", "--ranks", "--ranks-per-node",
                        "--tensor-parallel", "--pipeline-parallel", "--json"},
                  "the formulas of --compat with --params do not know it; leave it out");
  else if (closed)
    refuse_others(app,
                  Flags{"--params", "--ranks", "--stage", "--all-stages", "--shard-group",
                        "--precision", "--reduce-dtype", "--accumulate", "--reduce", "--order",
                        "--reshard", "--optimizer", "--json"},
                  "needs a model; --params has no architecture");
  else
    refuse(app, Flags{"--largest-layer"}, "goes with --params and --compat");
  if (compat)
    refuse(app,
           Flags{"--html", "--snapshot", "--by", "--measure", "--device-memory", "--markdown",
                 "--all-stages", "--backend", "--validation", "--sample"},
           "is of a report, not of --compat; leave one of them out");
}

void require_alone(const ReportOptions& o) {
  const bool one_file = !o.html.empty() || !o.snapshot.empty();
  require(!o.all_stages || !one_file, "all-stages", "", "goes with no --html or --snapshot");
  if (o.measure) require_trainable(o);
  require(!o.measure || !o.json, "measure", "", "prints a table; leave out --json");
  require(!o.markdown || !o.json, "markdown", "", "prints a table; leave out --json");
  require(o.reserve == "0" || !o.device_memory.empty(), "reserve", o.reserve,
          "needs --device-memory SIZE");
}

void check_parameters(const ReportOptions& o) {
  require(o.parameters >= 1 && o.parameters <= kMostParameters, "params",
          fmt::format("{}", o.parameters), "must be 1 to 1e17");
  require(o.largest_layer >= 0 && o.largest_layer <= o.parameters, "largest-layer",
          fmt::format("{}", o.largest_layer),
          fmt::format("must be 0 to the {:.17g} of --params", o.parameters));
}

int run(const ReportOptions& options, StepFlags& flags, const CLI::App& app) {
  if (!options.diff.empty()) {
    refuse_others(app, Flags{"--diff", "--json"}, "has no meaning beside --diff; leave it out");
    print_difference(options.diff[0], options.diff[1], options.json);
    return 0;
  }
  flags.fill_in();
  refuse_idle(options, app);
  const bool closed = flags.given("--params");
  if (closed) check_parameters(options);
  check(options);
  require_alone(options);
  require(options.compat.empty() || options.shard_group == 0, "shard-group",
          std::to_string(options.shard_group), "the formulas of --compat know none");
  if (!options.compat.empty()) return report_compat(options, closed);
  const std::vector<ReportOptions> stages = by_stage(options, flags);
  return closed ? report_closed_form(stages) : report_steps(stages, flags);
}

}  // namespace

void add_report(CLI::App& app, Command& command) {
  const auto options = std::make_shared<ReportOptions>();
  CLI::App& sub = *app.add_subcommand(
      "report", "Bytes and traffic of a training step, exactly, without running it");
  const auto flags = std::make_shared<StepFlags>(sub, *options);
  ReportOptions& o = *options;
  add_integer(sub, "--ranks", o.ranks, "any number: they need not exist");
  sub.add_flag("--all-stages", o.all_stages, "a column per stage; with --json an array");
  sub.add_option("--params", o.parameters, "parameters in all: formulas only, no architecture");
  sub.add_option("--largest-layer", o.largest_layer,
                 "parameters of it, for --compat with --params");
  add_choice(sub, "--optimizer", o.optimizer, {"adamw", "sgd", "momentum"}, "rule of the update");
  add_integer(sub, "--positions", o.positions, "of the model, instead of its own (for long --seq)");
  sub.add_option("--validation", o.validation, "as train_gpt: above 0, its arena serves that too");
  add_integer(sub, "--sample", o.sample, "as train_gpt: above 0, its arena serves that too");
  add_integer(sub, "--ranks-per-node", o.ranks_per_node, "for the bytes of a node (up to 8)");
  add_choice(sub, "--backend", o.backend, report_backends(),
             "the processor or GPU whose kernels' workspaces count");
  sub.add_option("--device-memory", o.device_memory, "does it fit? exit 1 when not");
  sub.add_option("--reserve", o.reserve, "of the device's memory, for others");
  add_choice(sub, "--by", o.by, {"unit", "module", "op"}, "who holds the bytes of the peak");
  sub.add_flag("--json", o.json, "print JSON");
  sub.add_flag("--markdown", o.markdown, "print a Markdown table");
  sub.add_option("--html", o.html, "a page with timeline and sliders");
  sub.add_option("--snapshot", o.snapshot, "the plan for PyTorch's memory_viz");
  add_choice(sub, "--compat", o.compat, compat_names(), "another tool's numbers beside ours");
  add_integer(sub, "--tensor-parallel", o.tensor_parallel,
              "as --compat eleuther or megatron has it; else not supported");
  add_integer(sub, "--pipeline-parallel", o.pipeline_parallel,
              "as --compat eleuther has it; else not supported");
  add_integer(sub, "--expert-parallel", o.expert_parallel, "not supported");
  sub.add_flag("--partition-activations", o.partition_activations,
               "of --compat eleuther: over the ranks of tensor parallelism");
  sub.add_flag("--measure", o.measure, "run two steps here and compare; exit 1 when they differ");
  sub.add_option("--diff", o.diff, "two files of --json")->expected(2);
  for (const char* flag : {"--ranks", "--optimizer", "--reserve"})
    sub.get_option(flag)->capture_default_str();
  sub.footer(std::string(kFooter) + kUnsupported);
  sub.callback([options, flags, &sub, &command] {
    command = [options, flags, &sub] { return run(*options, *flags, sub); };
  });
}

}  // namespace ashlar::cli
