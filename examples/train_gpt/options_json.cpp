// Options as data: for the summary and for the agreement between ranks.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "train_gpt/options.hpp"

namespace train_gpt {
namespace {

std::vector<std::string> strings(const std::vector<std::filesystem::path>& paths) {
  return {paths.begin(), paths.end()};
}

const char* on_off(bool on) { return on ? "on" : "off"; }

}  // namespace

nlohmann::ordered_json to_json(const Options& o) {
  return {{"model", o.model},
          {"init", o.init.string()},
          {"export", o.export_to.string()},
          {"text", strings(o.text)},
          {"tokens", strings(o.tokens)},
          {"synthetic", o.synthetic},
          {"validation", o.validation},
          {"validate-every", o.validate_every},
          {"stage", o.stage},
          {"shard-group", o.shard_group},
          {"precision", o.precision},
          {"reduce-dtype", o.reduce_dtype},
          {"batch", o.batch},
          {"seq", o.seq},
          {"accumulate", o.accumulate},
          {"reduce", o.reduce},
          {"order", o.order},
          {"recompute", o.recompute},
          {"memory-budget", o.memory_budget},
          {"steps", o.steps},
          {"lr", o.lr},
          {"warmup", o.warmup},
          {"schedule", o.schedule},
          {"weight-decay", o.weight_decay},
          {"betas", o.betas},
          {"clip", o.clip},
          {"dropout", o.dropout},
          {"freeze", o.freeze},
          {"seed", o.seed},
          {"ranks", o.ranks},
          {"device", o.device},
          {"deterministic", o.deterministic},
          {"threads", o.threads},
          {"bucket", o.bucket},
          {"prefetch", o.prefetch},
          {"overlap", on_off(o.overlap)},
          {"reshard", on_off(o.reshard)},
          {"timeout", o.timeout},
          {"metrics", o.metrics.string()},
          {"save", o.save.string()},
          {"save-every", o.save_every},
          {"resume", o.resume.string()},
          {"sample", o.sample},
          {"plot", o.plot.string()},
          {"allocation-trace", o.allocation_trace.string()},
          {"quiet", o.quiet}};
}

std::vector<std::string> agreement_entries(const Options& options) {
  constexpr std::array<std::string_view, 4> kRankZeroOnly{"metrics", "plot", "allocation-trace",
                                                          "quiet"};
  const nlohmann::ordered_json all = to_json(options);
  std::vector<std::string> entries{options.help.empty() ? "a run" : "--help"};
  for (const auto& [flag, value] : all.items())
    if (std::ranges::find(kRankZeroOnly, flag) == kRankZeroOnly.end())
      entries.push_back(fmt::format("--{} {}", flag, value.dump()));
  return entries;
}

}  // namespace train_gpt
