// What `ashlar report` asks the compiler: a step for any stage, ranks and batch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/flags/step_options.hpp"
#include "report/step_report.hpp"

namespace ashlar::cli {

struct ReportOptions : StepOptions {
  int ranks = 1;
  int ranks_per_node = 0;           // 0: all up to 8
  std::string optimizer = "adamw";  // adamw | sgd | momentum
  std::string backend;              // a processor's name; empty: this machine's
  std::int64_t positions = 0;       // of the model; 0: its own
  double validation = 0;            // more than 0: with a model that validates
  std::int64_t sample = 0;          // more than 0: with a model that samples
  double parameters = 0;            // --params: more than 0: no model
  double largest_layer = 0;         // --largest-layer, beside it
  /// Of the other tools of --compat; Ashlar has neither.
  int tensor_parallel = 1, pipeline_parallel = 1;
  int expert_parallel = 1;  // refused
  bool partition_activations = false;
  bool all_stages = false, json = false, markdown = false, measure = false;
  std::string html, snapshot, by, compat;
  std::string device_memory, reserve = "0";
  std::vector<std::string> diff;
};

/// @throws InvalidArgument for a flag whose value cannot be used.
void check(const ReportOptions& options);

TrainConfig report_config(const ReportOptions& options);
LanguageModel report_model(const ReportOptions& options);
/// The model's loss as train_gpt traces it.
LossModel report_loss(const ReportOptions& options);

/// The step that train_gpt would run with these flags on so many ranks.
CompiledStep compiled(const ReportOptions& options);
StepReport reported(const ReportOptions& options, const CompiledStep& step);

/// The largest --batch whose total is at most `bytes`; nothing when even one sequence is more.
std::optional<std::int64_t> largest_batch(const ReportOptions& options, std::int64_t bytes);

/// Two steps on ranks of this machine, predicted beside measured. @return whether they are equal.
bool measure(const ReportOptions& options, const StepReport& predicted);

/// What two files of --json say differently, as a table or as JSON by path: "peak_bytes/total".
void print_difference(const std::string& before, const std::string& after, bool json);

/// What --compat and --backend take.
std::vector<std::string> compat_names();
std::vector<std::string> report_backends();

/// What another tool prints for the same, and why it differs.
/// @param closed --params: no model
int report_compat(const ReportOptions& options, bool closed);

}  // namespace ashlar::cli
