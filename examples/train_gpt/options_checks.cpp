#include "train_gpt/options_checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ashlar/error.hpp"
#include "train_gpt/nearest.hpp"

namespace train_gpt {

using ashlar::InvalidArgument;

void require(bool holds, std::string_view flag, std::string_view value, std::string_view remedy) {
  if (!holds) throw InvalidArgument(fmt::format("--{} {}: {}", flag, value, remedy));
}

void require_choice(std::string_view flag, const std::string& value,
                    const std::vector<std::string>& choices) {
  if (std::ranges::find(choices, value) == choices.end())
    throw InvalidArgument(
        fmt::format("--{} {}: unknown; {}", flag, value, suggestion(value, choices)));
}

namespace {

const std::vector<std::string> kModels{"tiny",        "small",      "gpt2",
                                       "gpt2-medium", "gpt2-large", "gpt2-xl"};

constexpr std::int64_t kMostTokens = std::int64_t{1} << 31;      // past any memory
constexpr std::int64_t kMostStepTokens = std::int64_t{1} << 40;  // times any world: still 63 bits
constexpr int kMostThreads = 1024;  // past any node's cores; starting far more takes for ever

template <typename T>
void require_at_least(T value, T least, std::string_view flag) {
  require(value >= least, flag, fmt::format("{}", value), fmt::format("must be {} or more", least));
}

void check_model(const Options& o) {
  const std::filesystem::path path(o.model);
  std::error_code missing;
  if (std::ranges::find(kModels, o.model) != kModels.end()) return;
  if (std::filesystem::is_regular_file(path, missing)) return;
  if (path.extension() == ".json" || o.model.find('/') != std::string::npos)
    throw InvalidArgument(fmt::format("--model {}: there is no such file", o.model));
  throw InvalidArgument(fmt::format("--model {}: unknown; {} (or give the path of a config.json)",
                                    o.model, suggestion(o.model, kModels)));
}

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
  require(o.stage >= 0 && o.stage <= 3, "stage", std::to_string(o.stage), "must be 0, 1, 2 or 3");
  for (const auto& [flag, value] :
       {std::pair{"precision", o.precision}, std::pair{"reduce-dtype", o.reduce_dtype}})
    require_choice(flag, value, {"fp32", "bf16"});
  require_choice("reduce", o.reduce, {"each", "last"});
  require_choice("schedule", o.schedule, {"cosine", "constant"});
  require_choice("order", o.order, {"micro-batches", "layers"});
  require_choice("recompute", o.recompute, {"none", "cheap", "selective", "per-unit", "budget"});
  if (o.recompute == "budget" && o.memory_budget == 0)
    throw InvalidArgument("--recompute budget: needs --memory-budget SIZE");
  require_at_least<std::int64_t>(o.batch, 1, "batch");
  require_at_least<std::int64_t>(o.seq, 1, "seq");
  require(o.seq <= kMostTokens, "seq", std::to_string(o.seq),
          fmt::format("must be {} or less", kMostTokens));
  require(o.batch <= kMostTokens / o.seq, "batch", std::to_string(o.batch),
          fmt::format("must be {} or less with --seq {}", kMostTokens / o.seq, o.seq));
  require_at_least<std::int64_t>(o.accumulate, 1, "accumulate");
  const std::int64_t most = kMostStepTokens / (o.batch * o.seq);
  require(o.accumulate <= most, "accumulate", std::to_string(o.accumulate),
          fmt::format("must be {} or less with --batch {} and --seq {}", most, o.batch, o.seq));
  require_at_least<std::int64_t>(o.steps, 0, "steps");
  require_at_least<std::int64_t>(o.warmup, 0, "warmup");
  for (const auto& [flag, value] : {std::pair{"lr", o.lr}, std::pair{"clip", o.clip},
                                    std::pair{"weight-decay", o.weight_decay}})
    require(std::isfinite(value) && value >= 0, flag, fmt::format("{}", value),
            "must be a finite number, 0 or more");
  require(o.betas.size() == 2, "betas", fmt::format("{}", fmt::join(o.betas, " ")),
          "takes two numbers");
  for (const double beta : o.betas)
    require(beta >= 0 && beta < 1, "betas", fmt::format("{} {}", o.betas[0], o.betas[1]),
            "must both be in [0, 1)");
  require(o.dropout >= 0 && o.dropout < 1, "dropout", fmt::format("{}", o.dropout),
          "must be in [0, 1)");
}

void check_run(const Options& o) {
  require_at_least(o.ranks, 1, "ranks");
  require_at_least(o.threads, 0, "threads");
  for (const auto& [flag, value] : {std::pair{"ranks", o.ranks}, std::pair{"threads", o.threads}})
    require(value <= kMostThreads, flag, std::to_string(value),
            fmt::format("must be {} or less", kMostThreads));
  require_at_least(o.prefetch, 0, "prefetch");
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
  check_model(options);
  check_training(options);
  check_data(options);
  check_run(options);
}

}  // namespace train_gpt
