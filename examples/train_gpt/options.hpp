// What the user asked for: every flag of train_gpt as plain data, checked on its own. Checks that
// need the model, the files or the other ranks come later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/flags/step_options.hpp"

namespace train_gpt {

struct Options : ashlar::cli::StepOptions {  // its model: --init's when left out
  std::string help;                          // not empty when --help was given: print it and end

  std::filesystem::path init;  // empty: random weights
  std::filesystem::path export_to;

  std::vector<std::filesystem::path> text;
  std::vector<std::filesystem::path> tokens;
  bool synthetic = false;
  double validation = 0;            // fraction held out
  std::int64_t validate_every = 0;  // steps; 0 validates after the last step only

  std::int64_t steps = 100;  // in all, resumed ones included
  double lr = 3e-4;
  std::int64_t warmup = 0;            // steps
  std::string schedule = "constant";  // cosine | constant
  double weight_decay = 0.1;
  std::vector<double> betas{0.9, 0.95};
  std::int64_t seed = 1;

  int ranks = 1;               // as threads of this process
  std::string device = "cpu";  // cpu | cuda | cuda:0 ...
  std::string deterministic = "on";
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
