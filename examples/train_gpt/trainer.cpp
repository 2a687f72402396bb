#include "train_gpt/trainer.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "ashlar/checkpoint.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/error.hpp"
#include "ashlar/pretrained.hpp"
#include "train_gpt/gather.hpp"
#include "train_gpt/progress.hpp"

namespace train_gpt {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kValidationTokens = 1 << 17;
constexpr std::int64_t kSyntheticTokens = 1 << 22;

}  // namespace

std::atomic<bool> stop_requested{false};

void require_same_flags(ashlar::Communicator& world, const Options& options) {
  try {
    ashlar::require_agreement(world, "flags", agreement_entries(options));
  } catch (const ashlar::InvalidArgument& error) {
    ashlar::collectively(world, [&] {
      throw ashlar::InvalidArgument(
          fmt::format("{}; start every rank with the same flags", error.what()));
    });
  }
}

ashlar::LanguageModel model_of(const Options& options) {
  constexpr std::int64_t kGpt2Vocabulary = 50257;
  const bool of_bytes = options.model == "tiny" || options.model == "small";
  if (!of_bytes || options.tokens.empty()) return ashlar::language_model(options.model);
  ashlar::GptConfig model = ashlar::gpt_config(options.model);
  model.vocabulary = kGpt2Vocabulary;
  return model;
}

ashlar::TrainConfig train_config(const Options& options) {
  ashlar::TrainConfig config = ashlar::cli::step_config(options);
  config.optimizer =
      ashlar::AdamW{options.lr, options.betas[0], options.betas[1], 1e-8, options.weight_decay};
  const auto kind = options.schedule == "cosine" ? ashlar::Schedule::Kind::cosine
                                                 : ashlar::Schedule::Kind::constant;
  config.schedule = {kind, options.lr, options.warmup, options.steps};
  config.seed = static_cast<std::uint64_t>(options.seed);
  config.deterministic = options.deterministic == "on";
  return config;
}

std::string libraries_note(std::string_view counters, const ashlar::LibraryChoices& now) {
  const auto saved = nlohmann::json::parse(counters);
  const auto text = [&](const char* path) {
    const nlohmann::json::json_pointer key(path);
    return saved.contains(key) && saved[key].is_string() ? saved[key].get<std::string>() : "";
  };
  const std::string device = text("/libraries/device"), hash = text("/libraries/hash");
  if (now.device.empty() || device != now.device || hash == now.hash) return {};
  return fmt::format(
      "was trained with other algorithms for products or attention on {} ({}, now {}): what "
      "follows may "
      "differ in bits from the uninterrupted run",
      device, hash, now.hash);
}

Trainer::Trainer(ashlar::Communicator& world, const Options& options, int ranks_in_process)
    : world_(world), options_(options), ranks_in_process_(ranks_in_process) {
  world_.set_timeout(std::chrono::milliseconds(static_cast<std::int64_t>(options_.timeout * 1000)));
  if (options_.threads == 0) options_.threads = default_threads(world_);
  ashlar::collectively(world_, [&] { device_ = device_of(options_.device, world_); });
  // --quiet is rank 0's alone.
  samples_ = gather<int>(world_, options_.sample > 0 && !options_.quiet, "sampling")[0] > 0;
  ashlar::collectively(world_, [&] {
    open_data();
    if (!leads()) return;
    require_writable();
    if (!options_.allocation_trace.empty()) open_trace();
  });
  if (on_gpu()) free_at_start_ = ashlar::device_bytes(device_).free;
  build();
  start_weights();
  ashlar::collectively(world_, [&] {
    if (!leads() || options_.metrics.empty()) return;
    std::optional<std::int64_t> resumed_step;
    if (!options_.resume.empty()) resumed_step = train_->steps();
    metrics_.emplace(options_.metrics, resumed_step);
  });
}

void Trainer::open_trace() {
  try {
    trace_.emplace(options_.allocation_trace);
  } catch (const ashlar::InvalidArgument& error) {
    throw ashlar::InvalidArgument(
        fmt::format("--allocation-trace {}; name another place", error.what()));
  }
}

void Trainer::open_data() {
  model_ = model_of(options_);
  const ashlar::Holdout holdout{options_.validation, static_cast<std::uint64_t>(options_.seed)};
  if (!options_.text.empty()) {
    corpus_ = ashlar::open_text(options_.text, holdout, model_.vocabulary());
  } else if (!options_.tokens.empty()) {
    corpus_ = ashlar::open_tokens(options_.tokens, model_.vocabulary(), holdout);
  } else {
    corpus_.train = ashlar::synthetic_tokens(kSyntheticTokens, model_.vocabulary(),
                                             static_cast<std::uint64_t>(options_.seed));
  }
  sampler_.emplace(*corpus_.train, options_.seq + 1, static_cast<std::uint64_t>(options_.seed));
  if (!corpus_.validation) return;
  validation_starts_ =
      ashlar::validation_windows(*corpus_.validation, options_.seq + 1,
                                 std::max<std::int64_t>(1, kValidationTokens / options_.seq));
}

void Trainer::require_writable() const {
  const auto require = [](const char* flag, const fs::path& path, const fs::path& folder) {
    std::error_code error;
    if (!folder.empty()) fs::create_directories(folder, error);
    if (error || ::access(folder.empty() ? "." : folder.c_str(), W_OK) != 0)
      throw ashlar::InvalidArgument(fmt::format("{} {}: cannot be written: {}; name another place",
                                                flag, path.string(),
                                                error ? error.message() : std::strerror(errno)));
  };
  if (!options_.save.empty()) require("--save", options_.save, options_.save);
  if (!options_.export_to.empty()) require("--export", options_.export_to, options_.export_to);
  if (options_.plot.empty()) return;
  require("--plot", options_.plot, options_.plot.parent_path());
  std::error_code unknown;
  if (fs::is_directory(options_.plot, unknown))
    throw ashlar::InvalidArgument(
        fmt::format("--plot {}: is a folder; name a file in it", options_.plot.string()));
  if (fs::exists(options_.plot, unknown) && ::access(options_.plot.c_str(), W_OK) != 0)
    throw ashlar::InvalidArgument(
        fmt::format("--plot {}: cannot be written: {}; name another place", options_.plot.string(),
                    std::strerror(errno)));
}

void Trainer::build() {
  const auto loss = [&](ashlar::Tracer& t) {
    return model_.loss(t, model_trace(options_, options_.batch, options_.dropout));
  };
  std::vector<ashlar::ForwardModel> forwards;
  const auto add = [&](ashlar::ForwardModel forward) {
    forwards.push_back(std::move(forward));
    return static_cast<int>(forwards.size()) - 1;
  };
  if (corpus_.validation)
    evaluate_ = add([&](ashlar::Tracer& t) {
      t.output("loss", model_.loss(t, model_trace(options_, options_.batch, 0)));
    });
  if (samples_)
    next_token_ =
        add([&](ashlar::Tracer& t) { model_.next_token(t, model_trace(options_, 1, 0)); });
  ashlar::collectively(world_, [&] { require_groups(options_, world_.size()); });
  ashlar::TrainConfig config = train_config(options_);
  config.allocation_trace = trace_ ? &*trace_ : nullptr;
  config.device = device_;
  train_.emplace(world_, loss, config, forwards);
  ashlar::collectively(world_, [&] { require_frozen(options_, train_->layout().parameters()); });
}

void Trainer::start_weights() {
  if (!options_.init.empty()) ashlar::load_pretrained(world_, options_.init, *train_);
  if (options_.resume.empty()) return;
  const auto shards = train_->shards();
  const std::string text =
      ashlar::load_checkpoint(world_, options_.resume, train_->layout(), shards);
  std::int64_t step = 0;
  ashlar::collectively(world_, [&] { step = step_of(text); });
  train_->restore_from_shards();
  train_->set_steps(step);
  const std::string note = libraries_note(text, train_->library_choices());
  if (leads() && !note.empty())
    fmt::print(stderr, "train_gpt: {}: {}\n", options_.resume.string(), note);
}

std::int64_t Trainer::step_of(const std::string& text) const {
  const auto counters = nlohmann::json::parse(text);
  for (const char* key : {"step", "seed"})
    if (!counters.contains(key) || !counters[key].is_number_integer())
      throw ashlar::InvalidArgument(
          fmt::format("{}: the checkpoint has no {} of train_gpt; resume one that it saved",
                      options_.resume.string(), key));
  if (counters["seed"].get<std::int64_t>() != options_.seed) {
    throw ashlar::InvalidArgument(
        fmt::format("{}: was trained with --seed {}; give the same one to continue",
                    options_.resume.string(), counters["seed"].dump()));
  }
  return counters["step"].get<std::int64_t>();
}

void Trainer::tell_nothing_to_do() const {
  if (!leads() || options_.resume.empty() || options_.steps == 0) return;
  const bool ends = !options_.export_to.empty() || samples_ || corpus_.validation;
  fmt::print("checkpoint is at step {}, nothing to {} with --steps {}\n", train_->steps(),
             ends ? "train" : "do", options_.steps);
}

void Trainer::run() {
  if (train_->steps() >= options_.steps) tell_nothing_to_do();
  const std::int64_t first = train_->steps() + 1;
  {
    Progress progress(stderr, leads() ? progress_mode(stderr, options_.quiet) : ProgressMode::quiet,
                      first, options_.steps);
    while (train_->steps() < options_.steps && !stop_) {
      last_ = step();
      require_finite(last_);
      if (validates_now()) last_.validation_loss = validation_loss_ = validate();
      if (leads()) {
        progress.update(last_, std::chrono::duration<double>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
        curves_.add(last_);
      }
      write_metrics(to_line(last_));
      if (options_.save_every > 0 && train_->steps() % options_.save_every == 0 &&
          train_->steps() < options_.steps)
        save();
    }
  }
  finish();
}

}  // namespace train_gpt
