// What the values of a step's flags must be, each on its own and beside the others.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/nearest.hpp"
#include "cli/flags/flag_values.hpp"
#include "cli/flags/step_options.hpp"

namespace ashlar::cli {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 31;      // past any memory
constexpr std::int64_t kMostStepTokens = std::int64_t{1} << 40;  // times any world: still 63 bits
constexpr int kMostRanks = 1 << 20;
constexpr int kMostThreads = 1024;  // past any node's cores; starting far more takes for ever

void check_model(const StepOptions& o) {
  const std::filesystem::path path(o.model);
  std::error_code missing;
  const std::vector<std::string> presets = model_presets();
  if (std::ranges::find(presets, o.model) != presets.end()) return;
  if (std::filesystem::is_regular_file(path, missing)) return;
  if (path.extension() == ".json" || o.model.find('/') != std::string::npos)
    require(false, "model", o.model, "there is no such file");
  require(
      false, "model", o.model,
      fmt::format("unknown; {} (or give the path of a config.json)", suggestion(o.model, presets)));
}

void check_batches(const StepOptions& o) {
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
}

}  // namespace

void check(const StepOptions& o) {
  check_model(o);
  require(o.stage >= 0 && o.stage <= 3, "stage", std::to_string(o.stage), "must be 0, 1, 2 or 3");
  require_at_least(o.shard_group, 0, "shard-group");
  if (o.recompute == "budget" && o.memory_budget == 0)
    throw InvalidArgument("--recompute budget: needs --memory-budget SIZE");
  check_batches(o);
  require(std::isfinite(o.clip) && o.clip >= 0, "clip", fmt::format("{}", o.clip),
          "must be a finite number, 0 or more");
  require(o.dropout >= 0 && o.dropout < 1, "dropout", fmt::format("{}", o.dropout),
          "must be in [0, 1)");
  require_at_least(o.threads, 0, "threads");
  require(o.threads <= kMostThreads, "threads", std::to_string(o.threads),
          fmt::format("must be {} or less", kMostThreads));
  require_at_least(o.prefetch, 0, "prefetch");
}

void check_ranks(int ranks) {
  require_at_least(ranks, 1, "ranks");
  require(ranks <= kMostRanks, "ranks", std::to_string(ranks),
          fmt::format("must be {} or less", kMostRanks));
}

void require_trainable(const StepOptions& o) {
  for (const auto& [flag, value] :
       {std::pair{"precision", o.precision}, std::pair{"reduce-dtype", o.reduce_dtype}})
    require(dtype_of_precision(value) != DType::f16, flag, value,
            "can be reported, planned and simulated, not trained; use bf16");
}

}  // namespace ashlar::cli
