// The flags, by CLI11.
#include "train_gpt/options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "train_gpt/nearest.hpp"

namespace train_gpt {
namespace {

using ashlar::InvalidArgument;

const std::vector<std::string> kModels{"tiny",        "small",      "gpt2",
                                       "gpt2-medium", "gpt2-large", "gpt2-xl"};

constexpr std::int64_t kMostTokens = std::int64_t{1} << 31;  // past any memory
constexpr int kMostThreads = 1024;  // past any node's cores; starting far more takes for ever

/// What arrives as text and is turned into values once all flags are read.
struct Raw {
  std::string bucket = "25MiB";
  std::string overlap = "on";
  std::string reshard = "on";
  std::string reduce_dtype;
  std::string reduce;
  std::string recompute;
  std::string memory_budget;
};

/// Lists gather what all their flags name; of anything else the last word counts.
void add_flags(CLI::App& app, Options& o, Raw& raw) {
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("--model", o.model,
                 "tiny | small | gpt2 | gpt2-medium | gpt2-large | gpt2-xl, or a config.json");
  app.add_option("--init", o.init, "folder of Hugging Face safetensors to start from");
  app.add_option("--export", o.export_to, "folder to write config.json and model.safetensors to");
  app.add_option("--text", o.text, "files or folders, a token per byte")->expected(1, -1);
  app.add_option("--tokens", o.tokens, "uint16 token files of llm.c or nanoGPT")->expected(1, -1);
  app.add_flag("--synthetic", o.synthetic, "random tokens of the model's vocabulary");
  app.add_option("--validation", o.validation, "fraction held out (0.1 with --validate-every)");
  app.add_option("--validate-every", o.validate_every, "steps; 0: after the last one");
  app.add_option("--stage", o.stage, "ZeRO stage, 0 to 3");
  app.add_option("--precision", o.precision, "fp32 | bf16");
  app.add_option("--reduce-dtype", raw.reduce_dtype, "fp32 | bf16: gradients on the wire");
  app.add_option("--batch", o.batch, "sequences per rank");
  app.add_option("--seq", o.seq, "tokens per sequence");
  app.add_option("--accumulate", o.accumulate, "micro-batches per step");
  app.add_option("--reduce", raw.reduce, "each | last micro-batch (each at stages 2 and 3)");
  app.add_option("--order", o.order,
                 "micro-batches | layers: each through the model, or all through a unit");
  app.add_option("--recompute", raw.recompute,
                 "none | cheap | selective | per-unit | budget (cheap; layers: per-unit)");
  app.add_option("--memory-budget", raw.memory_budget,
                 "bytes of a rank, all its arenas: recompute the least that fits");
  app.add_option("--steps", o.steps, "in all, resumed ones included");
  app.add_option("--lr", o.lr, "learning rate");
  app.add_option("--warmup", o.warmup, "steps of linear warm-up");
  app.add_option("--schedule", o.schedule, "cosine | constant");
  app.add_option("--weight-decay", o.weight_decay, "AdamW's, on matrices");
  app.add_option("--betas", o.betas, "AdamW's two")->expected(2)->delimiter(',');
  app.add_option("--clip", o.clip, "global norm; 0: off");
  app.add_option("--dropout", o.dropout, "probability");
  app.add_option("--freeze", o.freeze, "pattern of parameter names")->expected(1, -1);
  app.add_option("--seed", o.seed, "of weights, data and dropout");
  app.add_option("--ranks", o.ranks, "ranks as threads of this process");
  app.add_option("--threads", o.threads, "per rank (cores of the node / its ranks)");
  app.add_option("--bucket", raw.bucket, "gradients reduced together: bytes, KiB, MiB or GiB");
  app.add_option("--prefetch", o.prefetch, "units gathered ahead");
  app.add_option("--overlap", raw.overlap, "on | off: communication beside compute");
  app.add_option("--reshard", raw.reshard, "on | off: drop parameters after forward");
  app.add_option("--timeout", o.timeout, "seconds that a collective waits for other ranks");
  app.add_option("--metrics", o.metrics, "JSON lines, one per step");
  app.add_option("--save", o.save, "folder of checkpoints");
  app.add_option("--save-every", o.save_every, "steps; 0: after the last one");
  app.add_option("--resume", o.resume, "folder of a checkpoint");
  app.add_option("--sample", o.sample, "tokens of text to generate at the end");
  app.add_option("--plot", o.plot, "SVG of loss and memory");
  app.add_option("--allocation-trace", o.allocation_trace,
                 "CSV of rank 0's buffers as steps use them, for `ashlar replay-allocations`");
  app.add_flag("--quiet", o.quiet, "no progress, table or sample");
  for (const char* flag :
       {"--model",        "--validation", "--stage",   "--precision", "--batch",  "--seq",
        "--accumulate",   "--order",      "--steps",   "--lr",        "--warmup", "--schedule",
        "--weight-decay", "--clip",       "--dropout", "--seed",      "--ranks",  "--bucket",
        "--prefetch",     "--overlap",    "--reshard", "--timeout",   "--betas"})
    app.get_option(flag)->capture_default_str();
  for (CLI::Option* option : app.get_options())
    if (option->get_items_expected_max() == 1) option->take_last();  // so scripts can append
}

void gather_lists(CLI::App& app) {
  for (const char* flag : {"--text", "--tokens", "--freeze"})
    app.get_option(flag)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void require(bool holds, std::string_view flag, std::string_view value, std::string_view remedy) {
  if (!holds) throw InvalidArgument(fmt::format("--{} {}: {}", flag, value, remedy));
}

template <typename T>
void require_at_least(T value, T least, std::string_view flag) {
  require(value >= least, flag, fmt::format("{}", value), fmt::format("must be {} or more", least));
}

void require_choice(std::string_view flag, const std::string& value,
                    const std::vector<std::string>& choices) {
  if (std::ranges::find(choices, value) == choices.end())
    throw InvalidArgument(
        fmt::format("--{} {}: unknown; {}", flag, value, suggestion(value, choices)));
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

bool on_off(std::string_view flag, const std::string& value) {
  require_choice(flag, value, {"on", "off"});
  return value == "on";
}

std::int64_t bytes_of(std::string_view flag, const std::string& value) {
  try {
    return ashlar::parse_bytes(value);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(fmt::format("--{} {}: {}", flag, value, error.what()));
  }
}

std::string config_of(const std::filesystem::path& init) {
  const std::filesystem::path config = init / "config.json";
  std::error_code missing;
  if (!std::filesystem::is_regular_file(config, missing))
    throw InvalidArgument(fmt::format(
        "--init {}: there is no config.json in it; name a folder that has one, or give --model",
        init.string()));
  return config.string();
}

/// The choices that depend on other flags.
void fill_in(Options& o, const Raw& raw, const CLI::App& app) {
  const bool layers = o.order == "layers";
  o.reduce = !raw.reduce.empty() ? raw.reduce : o.stage >= 2 && !layers ? "each" : "last";
  require(!layers || o.reduce == "last", "reduce", o.reduce,
          "--order layers reduces once; use last");
  o.recompute = !raw.recompute.empty() ? raw.recompute : layers ? "per-unit" : "cheap";
  o.reduce_dtype = raw.reduce_dtype.empty() ? o.precision : raw.reduce_dtype;
  if (!o.init.empty() && app.count("--model") == 0) o.model = config_of(o.init);
  o.overlap = on_off("overlap", raw.overlap);
  o.reshard = on_off("reshard", raw.reshard);
  o.bucket = bytes_of("bucket", raw.bucket);
  if (!raw.memory_budget.empty()) {
    o.memory_budget = bytes_of("memory-budget", raw.memory_budget);
    require(o.memory_budget > 0, "memory-budget", raw.memory_budget, "must be more than 0");
    if (app.count("--recompute") > 0)
      require(o.recompute == "budget", "memory-budget", raw.memory_budget,
              fmt::format("goes with --recompute budget, not {}", o.recompute));
    o.recompute = "budget";
  }
  if (app.count("--validation") == 0 && o.validate_every > 0) o.validation = 0.1;
  if (o.validate_every > 0 && o.validation == 0)
    throw InvalidArgument(
        fmt::format("--validate-every {}: nothing is held out; give --validation a "
                    "fraction above 0",
                    o.validate_every));
}

/// CLI11's complaints about one flag, in the words of the others here.
[[noreturn]] void reject(const CLI::ParseError& error) {
  throw InvalidArgument(fmt::format("{}; see --help", error.what()));
}

void reject_extras(const CLI::App& app, const std::vector<std::string>& extras) {
  if (extras.empty()) return;
  const std::string name = extras.front().substr(0, extras.front().find('='));
  if (!name.starts_with('-'))
    throw InvalidArgument(fmt::format("'{}' belongs to no flag; see --help", name));
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) names.push_back(option->get_name());
  std::string nearest = suggestion(name, names);
  if (nearest.starts_with("one of")) nearest = "see --help";
  throw InvalidArgument(fmt::format("{}: unknown flag; {}", name, nearest));
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
  Options options;
  Raw raw;
  CLI::App app("Trains a GPT with parameters, gradients and Adam states sharded over ranks.",
               "train_gpt");
  app.allow_extras();
  add_flags(app, options, raw);
  gather_lists(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    options.help = app.help();
    return options;
  } catch (const CLI::ParseError& error) {
    reject(error);
  }
  reject_extras(app, app.remaining());
  fill_in(options, raw, app);
  check_model(options);
  check_training(options);
  check_data(options);
  check_run(options);
  return options;
}

}  // namespace train_gpt
