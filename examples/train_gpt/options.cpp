// The flags, by CLI11.
#include "train_gpt/options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "ashlar/error.hpp"
#include "base/nearest.hpp"
#include "cli/flags/flag_values.hpp"
#include "train_gpt/options_checks.hpp"

namespace train_gpt {
namespace {

using ashlar::InvalidArgument;
using ashlar::cli::add_integer;
using ashlar::cli::take_last_words;

void add_flags(CLI::App& app, Options& o) {
  app.add_option("--init", o.init, "folder of Hugging Face safetensors to start from");
  app.add_option("--export", o.export_to, "folder to write config.json and model.safetensors to");
  app.add_option("--text", o.text, "files or folders, a token per byte")->expected(1, -1);
  app.add_option("--tokens", o.tokens, "uint16 token files of llm.c or nanoGPT")->expected(1, -1);
  app.add_flag("--synthetic", o.synthetic, "random tokens of the model's vocabulary");
  app.add_option("--validation", o.validation, "fraction held out (0.1 with --validate-every)");
  add_integer(app, "--validate-every", o.validate_every, "steps; 0: after the last one");
  add_integer(app, "--steps", o.steps, "in all, resumed ones included");
  app.add_option("--lr", o.lr, "learning rate");
  add_integer(app, "--warmup", o.warmup, "steps of linear warm-up");
  app.add_option("--schedule", o.schedule, "cosine | constant");
  app.add_option("--weight-decay", o.weight_decay, "AdamW's, on matrices");
  app.add_option("--betas", o.betas, "AdamW's two")->expected(2)->delimiter(',');
  add_integer(app, "--seed", o.seed, "of weights, data and dropout");
  add_integer(app, "--ranks", o.ranks, "ranks as threads of this process");
  app.add_option("--device", o.device, "cpu | cuda: a GPU each, in turn | cuda:1: that one");
  ashlar::cli::add_choice(app, "--deterministic", o.deterministic, {"on", "off"},
                          "off: on a GPU attention's gradients may be added in any order");
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
       {"--validation", "--steps", "--lr", "--warmup", "--schedule", "--weight-decay", "--seed",
        "--ranks", "--device", "--deterministic", "--timeout", "--betas"})
    app.get_option(flag)->capture_default_str();
  take_last_words(app);
  for (const char* flag : {"--text", "--tokens"})
    app.get_option(flag)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
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
void fill_in(Options& o, ashlar::cli::StepFlags& step) {
  step.fill_in();
  if (!o.init.empty() && !step.given("--model")) o.model = config_of(o.init);
  if (!step.given("--validation") && o.validate_every > 0) o.validation = 0.1;
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
  std::string nearest = ashlar::suggestion(name, names);
  if (nearest.starts_with("one of")) nearest = "see --help";
  throw InvalidArgument(fmt::format("{}: unknown flag; {}", name, nearest));
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
  Options options;
  CLI::App app("Trains a GPT with parameters, gradients and Adam states sharded over ranks.",
               "train_gpt");
  app.allow_extras();
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  ashlar::cli::StepFlags step(app, options);
  add_flags(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    options.help = app.help();
    return options;
  } catch (const CLI::ParseError& error) {
    reject(error);
  }
  reject_extras(app, app.remaining());
  fill_in(options, step);
  check(options);
  return options;
}

}  // namespace train_gpt
