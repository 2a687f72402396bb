#include "train_gpt/options_checks.hpp"

#include <fmt/format.h>

#include <cmath>

#include "ashlar/error.hpp"
#include "cli/flags/flag_values.hpp"

namespace train_gpt {

using ashlar::InvalidArgument;
using ashlar::cli::require;
using ashlar::cli::require_at_least;
using ashlar::cli::require_choice;

namespace {

constexpr int kMostThreads = 1024;  // past any node's cores; starting far more takes for ever

void check_data(const Options& o) {
  const int sources = (o.text.empty() ? 0 : 1) + (o.tokens.empty() ? 0 : 1) + (o.synthetic ? 1 : 0);
  if (sources > 1)
    throw InvalidArgument(fmt::format("{}, {}: give only one of --text, --tokens and --synthetic",
                                      o.text.empty() ? "--tokens" : "--text",
                                      o.synthetic ? "--synthetic" : "--tokens"));
  if (sources == 0 && o.steps > 0)
    throw InvalidArgument(
        "nothing to train on: give --text PATH, --tokens FILE.bin or --synthetic");
  require(o.validation >= 0 && o.validation < 1, "validation", fmt::format("{}", o.validation),
          "a fraction in [0, 1)");
  require_at_least<std::int64_t>(o.validate_every, 0, "validate-every");
  const bool divisible = !o.text.empty() || !o.tokens.empty() || sources == 0;
  require(o.validate_every == 0 || divisible, "validate-every", std::to_string(o.validate_every),
          "needs --text or --tokens");
  require(o.validation == 0 || divisible, "validation", fmt::format("{}", o.validation),
          "needs --text or --tokens");
}

void check_training(const Options& o) {
  require_choice("schedule", o.schedule, {"cosine", "constant"});
  require_at_least<std::int64_t>(o.steps, 0, "steps");
  require_at_least<std::int64_t>(o.warmup, 0, "warmup");
  for (const auto& [flag, value] :
       {std::pair{"lr", o.lr}, std::pair{"weight-decay", o.weight_decay}})
    require(std::isfinite(value) && value >= 0, flag, fmt::format("{}", value),
            "must be a finite number, 0 or more");
  require(o.betas.size() == 2, "betas", fmt::format("{}", fmt::join(o.betas, " ")),
          "takes two numbers");
  for (const double beta : o.betas)
    require(beta >= 0 && beta < 1, "betas", fmt::format("{} {}", o.betas[0], o.betas[1]),
            "must both be in [0, 1)");
}

void check_device(const Options& o) {
  try {
    ashlar::parse_device(o.device);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(
        fmt::format("--device {}: {}; --device cpu works everywhere", o.device, error.what()));
  }
  require(o.deterministic == "on" || o.device != "cpu", "deterministic", o.deterministic,
          "the CPU's kernels always are; give --device cuda");
}

void check_run(const Options& o) {
  require_at_least(o.ranks, 1, "ranks");
  require(o.ranks <= kMostThreads, "ranks", std::to_string(o.ranks),
          fmt::format("must be {} or less", kMostThreads));
  require_at_least<std::int64_t>(o.seed, 0, "seed");
  require(o.timeout >= 0.001 && o.timeout <= 1e6, "timeout", fmt::format("{}", o.timeout),
          "must be 0.001 to 1000000 seconds");
  require_at_least<std::int64_t>(o.save_every, 0, "save-every");
  require_at_least<std::int64_t>(o.sample, 0, "sample");
  require(o.save_every == 0 || !o.save.empty(), "save-every", std::to_string(o.save_every),
          "needs --save DIR");
  require(o.resume.empty() || o.init.empty(), "resume", o.resume.string(),
          "a checkpoint has its own weights; leave out --init");
}

}  // namespace

void check(const Options& options) {
  ashlar::cli::check(options);
  ashlar::cli::require_trainable(options);
  check_training(options);
  check_data(options);
  check_run(options);
  check_device(options);
}

}  // namespace train_gpt
