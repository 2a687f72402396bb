// ashlar calibrate: the few constants of a cluster that no data sheet tells, from named runs.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "ashlar/error.hpp"
#include "base/printable.hpp"
#include "cli/commands.hpp"
#include "cli/flags/flag_values.hpp"
#include "cli/output.hpp"
#include "simulate/calibration.hpp"

namespace ashlar::cli {
namespace {

using namespace simulate;
using Json = nlohmann::ordered_json;

struct Options {
  std::string file, output;
  std::vector<std::string> rows, clusters;
  bool json = false;
};

/// Errors of a calibration over the bf16 rows that it is not made from.
struct Trial {
  std::string name;
  Calibration calibration;
  std::vector<double> absolute = {};
};

class Calibrator {
 public:
  explicit Calibrator(const Options& options)
      : options_(options), runs_(read_measurements(options.file)) {
    for (const std::string& name : options.clusters) {
      const Cluster c = cluster(name);
      if (c.gpu.empty())
        throw InvalidArgument(
            printable(fmt::format("cluster {} has no 'gpu': what the measurements call it", name)));
      if (!priors_.clusters.emplace(c.gpu, c).second)
        throw InvalidArgument(printable(fmt::format("two clusters call their device '{}'", c.gpu)));
      texts_[c.gpu] = Json::parse(cluster_json(name));
    }
    choose_rows();
  }

  int run() {
    for (const Measurement& run : chosen_) steps_.push_back(compile_measured(run));
    trials_.push_back({"fitted", fit(priors_, chosen_, steps_)});
    trials_.push_back({"priors alone", priors_});
    for (const auto& [gpu, cluster] : priors_.clusters) leave_out(gpu);
    evaluate();
    const Json result = summary();
    write_file(options_.output, [&](std::ostream& out) { out << file(result).dump(2) << "\n"; });
    if (options_.json) {
      fmt::print("{}\n", result.dump());
    } else {
      print(result);
    }
    return 0;
  }

 private:
  void choose_rows() {
    for (const std::string& id : options_.rows) {
      const auto found = std::ranges::find(runs_, id, &Measurement::row_id);
      if (found == runs_.end())
        throw InvalidArgument(printable(fmt::format("{} has no row_id '{}'", options_.file, id)));
      if (!found->bf16) throw InvalidArgument(printable(fmt::format("row {} is not in bf16", id)));
      if (!priors_.clusters.contains(found->gpu))
        throw InvalidArgument(printable(fmt::format(
            "row {} ran on '{}', which none of the clusters names as its 'gpu'", id, found->gpu)));
      chosen_.push_back(*found);
    }
    if (std::set(options_.rows.begin(), options_.rows.end()).size() != options_.rows.size())
      throw InvalidArgument("--rows names a row twice");
  }

  /// The device keeps its priors and what the others tell.
  void leave_out(const std::string& gpu) {
    std::vector<Measurement> others;
    std::vector<CompiledStep> steps;
    for (std::size_t i = 0; i < chosen_.size(); ++i) {
      if (chosen_[i].gpu == gpu) continue;
      others.push_back(chosen_[i]);
      steps.push_back(steps_[i]);
    }
    if (others.empty() || others.size() == chosen_.size()) return;
    Trial trial{"without " + gpu, fit(priors_, others, steps)};
    trials_.push_back(std::move(trial));
  }

  void evaluate() {
    for (const Measurement& run : runs_) {
      if (!run.bf16 || !priors_.clusters.contains(run.gpu)) continue;
      const bool chosen = std::ranges::find(options_.rows, run.row_id) != options_.rows.end();
      const CompiledStep step = compile_measured(run);
      for (Trial& trial : trials_) {
        const double error = std::abs(
            predicted_tokens_per_second(run, step, trial.calibration) / run.tokens_per_second - 1);
        const bool of_device =
            !trial.name.starts_with("without ") || trial.name == "without " + run.gpu;
        if (chosen && &trial == &trials_.front()) residuals_.push_back(error);
        if (!chosen && of_device) trial.absolute.push_back(error);
      }
    }
  }

  /// To what the fit can tell: the file does not change with the last bits of a logarithm.
  static double rounded(double x) { return std::round(x * 1e4) / 1e4; }

  static Json errors_json(const std::vector<double>& absolute) {
    const Errors errors = errors_of(absolute);
    return {{"rows", absolute.size()},
            {"mean_error", rounded(errors.mean)},
            {"median_error", rounded(errors.median)},
            {"maximum_error", rounded(errors.maximum)}};
  }

  Json summary() const {
    Json json{{"constants", Json::object()}};
    const Calibration& fitted = trials_.front().calibration;
    const auto constant = [&](const std::string& name, double prior, double now) {
      json["constants"][name] = {{"prior", prior}, {"fitted", rounded(now)}};
    };
    constant("software.traffic_scale", priors_.software.traffic_scale,
             fitted.software.traffic_scale);
    for (const auto& [gpu, before] : priors_.clusters) {
      const Cluster& now = fitted.clusters.at(gpu);
      constant(gpu + ".product_efficiency", before.device.product_efficiency,
               now.device.product_efficiency);
      constant(gpu + ".attention_efficiency", before.device.attention_efficiency,
               now.device.attention_efficiency);
    }
    const auto& first = *priors_.clusters.begin();
    constant("overlap.slowdown", first.second.overlap_slowdown,
             fitted.clusters.begin()->second.overlap_slowdown);
    json["residual"] = errors_json(residuals_);
    for (const Trial& trial : trials_) json["other_rows"][trial.name] = errors_json(trial.absolute);
    return json;
  }

  /// The calibration with all that predict uses, each number with its source.
  Json file(const Json& summary) const {
    const Calibration& fitted = trials_.front().calibration;
    const std::string rows = fmt::format("{}", fmt::join(options_.rows, ", "));
    Json json{{"rows", options_.rows}};
    json["software"] = {
        {"traffic_scale", rounded(fitted.software.traffic_scale)},
        {"logit_bytes", fitted.software.logit_bytes},
        {"cast_bytes_per_parameter", fitted.software.cast_bytes},
        {"overlap_reductions", fitted.software.overlap_reductions},
        {"sources",
         {{"traffic_scale", fmt::format("fitted to rows {}; prior {}: kernels run apart that the "
                                        "Program fuses",
                                        rows, priors_.software.traffic_scale)},
          {"logit_bytes",
           "counted: cast to f32 (2 + 4), log-softmax (4 + 4 + 4), its gradient (4, then 4 + 4 + "
           "4), cast back (4 + 2)"},
          {"cast_bytes_per_parameter",
           "counted: f32 read, bf16 written, where parameters are gathered in f32 (mp_mode "
           "DEFAULT: Composer's mixed_precision of that name sets no param_dtype)"},
          {"overlap_reductions", "PyTorch's FSDP reduces on a stream of its own"}}}};
    for (const auto& [gpu, text] : texts_) {
      Json cluster = text;
      const Cluster& now = fitted.clusters.at(gpu);
      replace(cluster, "device", "product_efficiency", now.device.product_efficiency, rows);
      replace(cluster, "device", "attention_efficiency", now.device.attention_efficiency, rows);
      replace(cluster, "overlap", "slowdown", now.overlap_slowdown, rows);
      json["clusters"][gpu] = std::move(cluster);
    }
    json["result"] = summary;
    return json;
  }

  static void replace(Json& cluster, const char* section, const char* key, double value,
                      const std::string& rows) {
    const double prior = cluster[section].value(key, 0.0);
    cluster[section][key] = rounded(value);
    const std::string name = std::string(section) + "." + key;
    const Json& sources = cluster["sources"];
    const std::string source = sources.contains(name)      ? sources[name].get<std::string>()
                               : sources.contains(section) ? sources[section].get<std::string>()
                                                           : "none given";
    cluster["sources"][name] = fmt::format("fitted to rows {}; prior {}: {}", rows, prior, source);
  }

  static void print(const Json& result) {
    fmt::print("{:40} {:>8} {:>8}\n", "constant", "prior", "fitted");
    for (const auto& [name, value] : result["constants"].items())
      fmt::print("{:40} {:>8.4f} {:>8.4f}\n", printable(name), value["prior"].get<double>(),
                 value["fitted"].get<double>());
    const auto line = [](const std::string& name, const Json& errors) {
      fmt::print(
          "{:40} {:>3} rows: mean {:.2f} %, median {:.2f} %, maximum {:.2f} %\n", printable(name),
          errors["rows"].get<int>(), 100 * errors["mean_error"].get<double>(),
          100 * errors["median_error"].get<double>(), 100 * errors["maximum_error"].get<double>());
    };
    line("residual", result["residual"]);
    for (const auto& [name, errors] : result["other_rows"].items())
      line("other rows, " + name, errors);
  }

  const Options& options_;
  std::vector<Measurement> runs_, chosen_;
  std::vector<CompiledStep> steps_;  // of chosen_
  Calibration priors_;
  std::map<std::string, Json> texts_;  // of the clusters, by gpu
  std::vector<Trial> trials_;
  std::vector<double> residuals_;
};

}  // namespace

void add_calibrate(CLI::App& app, Command& command) {
  const auto options = std::make_shared<Options>();
  CLI::App& sub = *app.add_subcommand(
      "calibrate", "The few constants of a cluster that no data sheet tells, from measured runs");
  sub.add_option("file", options->file, "CSV in the dialect of llm-foundry's table of throughputs")
      ->required();
  sub.add_option("--rows", options->rows, "row_ids to fit to, and no others")
      ->delimiter(',')
      ->required();
  const auto clusters = shipped_clusters();
  CLI::Option& cluster =
      *sub.add_option("--cluster", options->clusters, "priors: cluster files with a 'gpu'");
  show_words(*cluster.delimiter(',')->required(), {clusters.begin(), clusters.end()}, "FILE");
  sub.add_option("--output", options->output, "the calibration, for ashlar predict")->required();
  sub.add_flag("--json", options->json, "print JSON");
  sub.footer(
      "Example: ashlar calibrate llm_foundry.csv --rows 23,41,45,69 --cluster dgx-h100 --output "
      "h100.json");
  sub.callback([options, &command] { command = [options] { return Calibrator(*options).run(); }; });
}

}  // namespace ashlar::cli
