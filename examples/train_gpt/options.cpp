// The flags, by CLI11.
#include "train_gpt/options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "train_gpt/nearest.hpp"
#include "train_gpt/options_checks.hpp"

namespace train_gpt {
namespace {

using ashlar::InvalidArgument;

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

/// CLI11 alone takes 010 for octal and what does not fit for the nearest that does.
template <typename Integer>
CLI::Option* add_integer(CLI::App& app, const char* flag, Integer& value, const char* meaning) {
  return app.add_option(flag, value, meaning)->transform([flag](const std::string& word) {
    Integer number = 0;
    const char* end = word.data() + word.size();
    const auto [stopped, error] = std::from_chars(word.data(), end, number);
    if (error != std::errc{} || stopped != end)
      throw InvalidArgument(fmt::format("{} {}: must be a whole number from 0 to {}", flag, word,
                                        std::numeric_limits<Integer>::max()));
    return std::to_string(number);
  });
}

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
  add_integer(app, "--validate-every", o.validate_every, "steps; 0: after the last one");
  add_integer(app, "--stage", o.stage, "ZeRO stage, 0 to 3");
  app.add_option("--precision", o.precision, "fp32 | bf16");
  app.add_option("--reduce-dtype", raw.reduce_dtype, "fp32 | bf16: gradients on the wire");
  add_integer(app, "--batch", o.batch, "sequences per rank");
  add_integer(app, "--seq", o.seq, "tokens per sequence");
  add_integer(app, "--accumulate", o.accumulate, "micro-batches per step");
  app.add_option("--reduce", raw.reduce, "each | last micro-batch (each at stages 2 and 3)");
  app.add_option("--order", o.order,
                 "micro-batches | layers: each through the model, or all through a unit");
  app.add_option("--recompute", raw.recompute,
                 "none | cheap | selective | per-unit | budget (cheap; layers: per-unit)");
  app.add_option("--memory-budget", raw.memory_budget,
                 "bytes of a rank, all its arenas: recompute the least that fits");
  add_integer(app, "--steps", o.steps, "in all, resumed ones included");
  app.add_option("--lr", o.lr, "learning rate");
  add_integer(app, "--warmup", o.warmup, "steps of linear warm-up");
  app.add_option("--schedule", o.schedule, "cosine | constant");
  app.add_option("--weight-decay", o.weight_decay, "AdamW's, on matrices");
  app.add_option("--betas", o.betas, "AdamW's two")->expected(2)->delimiter(',');
  app.add_option("--clip", o.clip, "global norm; 0: off");
  app.add_option("--dropout", o.dropout, "probability");
  app.add_option("--freeze", o.freeze, "pattern of parameter names")->expected(1, -1);
  add_integer(app, "--seed", o.seed, "of weights, data and dropout");
  add_integer(app, "--ranks", o.ranks, "ranks as threads of this process");
  add_integer(app, "--threads", o.threads, "per rank (cores of the node / its ranks)");
  app.add_option("--bucket", raw.bucket, "gradients reduced together: bytes, KiB, MiB or GiB");
  add_integer(app, "--prefetch", o.prefetch, "units gathered ahead");
  app.add_option("--overlap", raw.overlap, "on | off: communication beside compute");
  app.add_option("--reshard", raw.reshard, "on | off: drop parameters after forward");
  app.add_option("--timeout", o.timeout, "seconds that a collective waits for other ranks");
  app.add_option("--metrics", o.metrics, "JSON lines, one per step");
  app.add_option("--save", o.save, "folder of checkpoints");
  add_integer(app, "--save-every", o.save_every, "steps; 0: after the last one");
  app.add_option("--resume", o.resume, "folder of a checkpoint");
  add_integer(app, "--sample", o.sample, "tokens of text to generate at the end");
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
  check(options);
  return options;
}

}  // namespace train_gpt
