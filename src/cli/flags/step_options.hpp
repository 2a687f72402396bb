// The flags that describe a training step: what train_gpt runs is what `ashlar` reports, plans and
// simulates.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/nn/language_model.hpp"
#include "ashlar/train_step.hpp"

namespace ashlar::cli {

struct StepOptions {
  std::string model = "tiny";  // a name, or the path of a config.json
  int stage = 3;
  int shard_group = 0;                  // ranks that share one copy of the model state; 0: all
  std::string precision = "fp32";       // fp32 | bf16 | fp16
  std::string reduce_dtype = "fp32";    // fp32 | bf16 | fp16
  std::int64_t batch = 8;               // sequences per rank and micro-batch
  std::int64_t seq = 256;               // tokens per sequence
  std::int64_t accumulate = 1;          // micro-batches per step
  std::string reduce = "each";          // each | last
  std::string order = "micro-batches";  // micro-batches | layers
  std::string recompute = "cheap";      // none | cheap | selective | per-unit | budget
  std::int64_t memory_budget = 0;       // bytes per rank, for --recompute budget
  double clip = 0;                      // global norm; 0 is off
  double dropout = 0;
  std::vector<std::string> freeze;  // patterns of parameter names
  int threads = 0;                  // per rank; 0 is the node's cores divided by its ranks
  std::int64_t bucket = std::int64_t{25} << 20;  // bytes
  int prefetch = 1;                              // units
  bool overlap = true;
  bool reshard = true;  // after forward
};

/// The flags in an app.
class StepFlags {
 public:
  /// Adds them. Both must outlive the parsing.
  StepFlags(CLI::App& app, StepOptions& options);
  /// After parsing: choices that depend on other flags. @throws InvalidArgument for a value that
  /// is none.
  void fill_in();
  /// Whether the user gave it: "--model".
  bool given(const char* flag) const { return app_.count(flag) > 0; }

 private:
  CLI::App& app_;
  StepOptions& options_;
  std::string bucket_ = "25MiB", overlap_ = "on", reshard_ = "on";
  std::string reduce_dtype_, reduce_, recompute_, memory_budget_;
};

/// @throws InvalidArgument for the first flag whose value cannot be used.
void check(const StepOptions& options);

/// 1 to about a million. @throws InvalidArgument.
void check_ranks(int ranks);

/// What --precision takes, and the type that it names.
std::vector<std::string> precision_names();
DType dtype_of_precision(std::string_view precision);
/// @throws InvalidArgument for fp16, in which a step can be planned but not run.
void require_trainable(const StepOptions& options);

/// What --recompute takes.
std::vector<std::string> recompute_names();
std::string_view recompute_name(Recompute how);

/// What the flags say; learning rate, seed and data are the caller's.
TrainConfig step_config(const StepOptions& options);
ModelTrace model_trace(const StepOptions& options, std::int64_t batch, double dropout);

/// --shard-group divides them. @throws InvalidArgument.
void require_groups(const StepOptions& options, int ranks);

/// Each pattern of --freeze must mean something. @throws InvalidArgument.
void require_frozen(const StepOptions& options, std::span<const Parameter> parameters);

}  // namespace ashlar::cli
