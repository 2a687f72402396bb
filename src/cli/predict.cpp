// ashlar predict: the throughput of measured runs from their Programs and a calibration.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "ashlar/memory_resource.hpp"
#include "base/printable.hpp"
#include "cli/commands.hpp"
#include "simulate/calibration.hpp"

namespace ashlar::cli {
namespace {

using namespace simulate;
using Json = nlohmann::ordered_json;

struct Options {
  std::string file, calibration = "llm-foundry-calibration";
  bool json = false;
};

struct Row {
  const Measurement* run;
  double predicted;
  std::int64_t peak_bytes;
  bool fits, calibrated;
  double error() const { return predicted / run->tokens_per_second - 1; }
};

Row predict(const Measurement& run, const Calibration& calibration) {
  const CompiledStep step = compile_measured(run);
  Row row{&run, predicted_tokens_per_second(run, step, calibration), step.planned().total, false,
          std::ranges::find(calibration.rows, run.row_id) != calibration.rows.end()};
  row.fits =
      static_cast<double>(row.peak_bytes) <= calibration.clusters.at(run.gpu).device.memory_bytes;
  return row;
}

void print_json(const std::vector<Row>& rows, const Errors& errors,
                const std::vector<std::string>& skipped) {
  Json all = Json::array();
  for (const Row& row : rows) {
    all.push_back({{"row_id", row.run->row_id},
                   {"predicted_tokens_per_s", row.predicted},
                   {"measured_tokens_per_s", row.run->tokens_per_second},
                   {"fits", row.fits},
                   {"peak_bytes", row.peak_bytes},
                   {"error", row.error()},
                   {"calibrated", row.calibrated}});
  }
  fmt::print("{}\n", Json{{"rows", all},
                          {"mean_error", errors.mean},
                          {"median_error", errors.median},
                          {"maximum_error", errors.maximum},
                          {"skipped", skipped}}
                         .dump());
}

void print_text(const std::vector<Row>& rows, const Errors& errors,
                const std::vector<std::string>& skipped) {
  fmt::print("{:>8} {:>11} {:>6} {:>14} {:>14} {:>8} {:>10}\n", "row", "gpu", "ranks", "predicted",
             "measured", "error", "peak");
  for (const Row& row : rows) {
    fmt::print("{:>8} {:>11} {:>6} {:>14.0f} {:>14.0f} {:>+7.1f}% {:>10}{}{}\n",
               printable(row.run->row_id), printable(row.run->gpu), row.run->ranks, row.predicted,
               row.run->tokens_per_second, 100 * row.error(), format_bytes(row.peak_bytes),
               row.fits ? "" : " does not fit", row.calibrated ? " calibrated on" : "");
  }
  fmt::print(
      "rows that were not calibrated on: mean error {:.2f} %, median {:.2f} %, maximum {:.2f} %\n",
      100 * errors.mean, 100 * errors.median, 100 * errors.maximum);
  if (!skipped.empty())
    fmt::print("skipped, not in bf16: {}\n",
               printable(fmt::format("{}", fmt::join(skipped, ", "))));
}

int run(const Options& options) {
  const std::vector<Measurement> runs = read_measurements(options.file);
  const Calibration calibration = simulate::calibration(options.calibration);
  std::vector<Row> rows;
  std::vector<double> absolute;
  std::vector<std::string> skipped;
  for (const Measurement& run : runs) {
    if (!run.bf16) {
      skipped.push_back(run.row_id);
      continue;
    }
    rows.push_back(predict(run, calibration));
    if (!rows.back().calibrated) absolute.push_back(std::abs(rows.back().error()));
  }
  (options.json ? print_json : print_text)(rows, errors_of(std::move(absolute)), skipped);
  return 0;
}

}  // namespace

void add_predict(CLI::App& app, Command& command) {
  const auto options = std::make_shared<Options>();
  CLI::App& sub = *app.add_subcommand(
      "predict", "Throughput of measured runs from their Programs and a calibration");
  sub.add_option("file", options->file, "CSV in the dialect of llm-foundry's table of throughputs")
      ->required();
  sub.add_option("--calibration", options->calibration, "what ashlar calibrate wrote")
      ->capture_default_str();
  sub.add_flag("--json", options->json, "print JSON");
  sub.footer(
      "Example: ashlar predict llm_foundry.csv --calibration llm-foundry-calibration --json");
  sub.callback([options, &command] { command = [options] { return run(*options); }; });
}

}  // namespace ashlar::cli
