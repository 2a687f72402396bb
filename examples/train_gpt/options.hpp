// What the user asked for: every flag of train_gpt as plain data, checked on its own. Checks that
// need the model, the files or the other ranks come later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace train_gpt {

struct Options {
  std::string help;  // not empty when --help was given: print it and end

  std::string model = "tiny";  // a name, or the path of a config.json (--init's when left out)
  std::filesystem::path init;  // empty: random weights
  std::filesystem::path export_to;

  std::vector<std::filesystem::path> text;
  std::vector<std::filesystem::path> tokens;
  bool synthetic = false;
  double validation = 0;            // fraction held out
  std::int64_t validate_every = 0;  // steps; 0 validates after the last step only

  int stage = 3;
  std::string precision = "fp32";       // fp32 | bf16
  std::string reduce_dtype = "fp32";    // fp32 | bf16
  std::int64_t batch = 8;               // sequences per rank and micro-batch
  std::int64_t seq = 256;               // tokens per sequence
  std::int64_t accumulate = 1;          // micro-batches per step
  std::string reduce = "each";          // each | last
  std::string order = "micro-batches";  // micro-batches | layers
  std::string recompute = "cheap";      // none | cheap | selective | per-unit | budget
  std::int64_t memory_budget = 0;       // bytes per rank, for --recompute budget
  std::int64_t steps = 100;             // in all, resumed ones included
  double lr = 3e-4;
  std::int64_t warmup = 0;            // steps
  std::string schedule = "constant";  // cosine | constant
  double weight_decay = 0.1;
  std::vector<double> betas{0.9, 0.95};
  double clip = 0;  // global norm; 0 is off
  double dropout = 0;
  std::vector<std::string> freeze;  // patterns of parameter names
  std::int64_t seed = 1;

  int ranks = 1;    // as threads of this process
  int threads = 0;  // per rank; 0 is the node's cores divided by its ranks
  std::int64_t bucket = std::int64_t{25} << 20;  // bytes
  int prefetch = 1;                              // units
  bool overlap = true;
  bool reshard = true;  // after forward
  double timeout = 60;  // seconds

  std::filesystem::path metrics;
  std::filesystem::path save;
  std::int64_t save_every = 0;  // steps; 0 saves at the end only
  std::filesystem::path resume;
  std::int64_t sample = 0;  // tokens to generate at the end
  std::filesystem::path plot;
  std::filesystem::path allocation_trace;
  bool quiet = false;
};

/// @throws ashlar::InvalidArgument, one line naming the flag, what is wrong with it and the remedy
/// (the nearest names for an unknown flag, model or choice).
Options parse_options(int argc, const char* const* argv);

/// Every flag but --help, by its name without dashes, in the order of --help.
nlohmann::ordered_json to_json(const Options& options);

/// One line per flag that all ranks must have been given alike: all but those that only rank 0
/// reads.
std::vector<std::string> agreement_entries(const Options& options);

}  // namespace train_gpt
