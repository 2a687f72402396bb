#include "cli/flags/step_options.hpp"

#include <algorithm>

#include "cli/flags/flag_values.hpp"

namespace ashlar::cli {

StepFlags::StepFlags(CLI::App& app, StepOptions& o) : app_(app), options_(o) {
  app.add_option("--model", o.model,
                 "tiny, gpt2-xl, gpt3-175b, megatron-1t, mpt-7b, llama2-70b, mistral-7b, ..., or a "
                 "config.json");
  show_words(*add_integer(app, "--stage", o.stage, "of ZeRO"), {"0", "1", "2", "3"});
  add_integer(app, "--shard-group", o.shard_group,
              "neighbouring ranks that share one copy of the model state; 0: all");
  add_choice(app, "--precision", o.precision, precision_names(), "fp16: not to train");
  add_choice(app, "--reduce-dtype", reduce_dtype_, precision_names(),
             "of gradients on the wire (--precision)");
  add_integer(app, "--batch", o.batch, "sequences per rank");
  add_integer(app, "--seq", o.seq, "tokens per sequence");
  add_integer(app, "--accumulate", o.accumulate, "micro-batches per step");
  add_choice(app, "--reduce", reduce_, {"each", "last"}, "micro-batch (each at stages 2 and 3)");
  add_choice(app, "--order", o.order, {"micro-batches", "layers"},
             "each through the model, or all through a unit");
  add_choice(app, "--recompute", recompute_, recompute_names(), "(cheap; layers: per-unit)");
  app.add_option("--memory-budget", memory_budget_,
                 "bytes of a rank, all its arenas: recompute the least that fits");
  app.add_option("--clip", o.clip, "global norm; 0: off");
  app.add_option("--dropout", o.dropout, "probability");
  app.add_option("--freeze", o.freeze, "pattern of parameter names")
      ->expected(1, -1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add_integer(app, "--threads", o.threads, "per rank (cores of the node / its ranks)");
  app.add_option("--bucket", bucket_, "gradients reduced together: bytes, KiB, MiB or GiB");
  add_integer(app, "--prefetch", o.prefetch, "units gathered ahead");
  add_choice(app, "--overlap", overlap_, {"on", "off"}, "communication beside compute");
  add_choice(app, "--reshard", reshard_, {"on", "off"}, "drop parameters after forward");
  for (const char* flag :
       {"--model", "--stage", "--shard-group", "--precision", "--batch", "--seq", "--accumulate",
        "--order", "--clip", "--dropout", "--bucket", "--prefetch", "--overlap", "--reshard"})
    app.get_option(flag)->capture_default_str();
}

void StepFlags::fill_in() {
  StepOptions& o = options_;
  const bool layers = o.order == "layers";
  o.reduce = !reduce_.empty() ? reduce_ : o.stage >= 2 && !layers ? "each" : "last";
  require(!layers || o.reduce == "last", "reduce", o.reduce,
          "--order layers reduces once; use last");
  o.recompute = !recompute_.empty() ? recompute_ : layers ? "per-unit" : "cheap";
  o.reduce_dtype = reduce_dtype_.empty() ? o.precision : reduce_dtype_;
  o.overlap = overlap_ == "on";
  o.reshard = reshard_ == "on";
  o.bucket = bytes_of("bucket", bucket_);
  if (memory_budget_.empty()) return;
  o.memory_budget = bytes_of("memory-budget", memory_budget_);
  require(o.memory_budget > 0, "memory-budget", memory_budget_, "must be more than 0");
  if (given("--recompute"))
    require(o.recompute == "budget", "memory-budget", memory_budget_,
            fmt::format("goes with --recompute budget, not {}", o.recompute));
  o.recompute = "budget";
}

namespace {

constexpr std::pair<std::string_view, Recompute> kRecompute[] = {
    {"none", Recompute::none},
    {"cheap", Recompute::cheap},
    {"selective", Recompute::selective},
    {"per-unit", Recompute::per_unit},
    {"budget", Recompute::budget}};

Recompute recompute_of(std::string_view name) {
  for (const auto& [text, how] : kRecompute)
    if (text == name) return how;
  return Recompute::cheap;
}

constexpr std::pair<std::string_view, DType> kPrecisions[] = {
    {"fp32", DType::f32}, {"bf16", DType::bf16}, {"fp16", DType::f16}};

}  // namespace

std::vector<std::string> precision_names() {
  std::vector<std::string> names;
  for (const auto& [name, dtype] : kPrecisions) names.emplace_back(name);
  return names;
}

DType dtype_of_precision(std::string_view precision) {
  for (const auto& [name, dtype] : kPrecisions)
    if (name == precision) return dtype;
  return DType::f32;
}

std::string_view recompute_name(Recompute how) {
  for (const auto& [text, value] : kRecompute)
    if (value == how) return text;
  return "cheap";
}

std::vector<std::string> recompute_names() {
  std::vector<std::string> names;
  for (const auto& [name, how] : kRecompute) names.emplace_back(name);
  return names;
}

TrainConfig step_config(const StepOptions& o) {
  TrainConfig config;
  config.zero = {o.stage, o.bucket, o.prefetch, o.overlap, o.reshard, o.shard_group};
  config.precision = {dtype_of_precision(o.precision), dtype_of_precision(o.reduce_dtype)};
  config.clip = o.clip;
  config.micro_batches = o.accumulate;
  config.reduce = o.reduce == "each" ? ReduceWhen::each : ReduceWhen::last;
  config.order = o.order == "layers" ? MicroBatchOrder::layers : MicroBatchOrder::micro_batches;
  config.recompute = recompute_of(o.recompute);
  config.memory_budget = o.memory_budget;
  config.samples = o.batch;
  config.threads = o.threads;
  return config;
}

ModelTrace model_trace(const StepOptions& o, std::int64_t batch, double dropout) {
  return {batch, o.seq, dtype_of_precision(o.precision), dropout, o.freeze};
}

void require_groups(const StepOptions& o, int ranks) {
  require(o.shard_group == 0 || ranks % o.shard_group == 0, "shard-group",
          std::to_string(o.shard_group), fmt::format("must divide the {} rank(s)", ranks));
}

void require_frozen(const StepOptions& o, std::span<const Parameter> parameters) {
  for (const std::string& pattern : o.freeze) {
    if (std::ranges::any_of(parameters,
                            [&](const auto& p) { return matches_pattern(p.name, pattern); }))
      continue;
    throw InvalidArgument(fmt::format(
        "--freeze {}: no parameter is named so; names are like {}, {} and {}", pattern,
        parameters.front().name, parameters[parameters.size() / 2].name, parameters.back().name));
  }
}

}  // namespace ashlar::cli
