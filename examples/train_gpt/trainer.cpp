#include "train_gpt/trainer.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

#include "ashlar/checkpoint.hpp"
#include "ashlar/error.hpp"
#include "ashlar/pretrained.hpp"
#include "train_gpt/gather.hpp"
#include "train_gpt/progress.hpp"

namespace train_gpt {
namespace {

namespace fs = std::filesystem;
using ashlar::Batch;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kValidationBatches = 8;
constexpr std::int64_t kSyntheticTokens = 1 << 22;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Sample `b` of a batch: the `seq` tokens from `begin` and the ones after them.
void fill_row(const ashlar::TokenSource& source, std::int64_t begin, const Batch& batch,
              std::int64_t b, std::int64_t seq) {
  const auto row = [&](const char* name) {
    return batch.at(name).span<std::int32_t>().subspan(static_cast<std::size_t>(b * seq),
                                                       static_cast<std::size_t>(seq));
  };
  ashlar::copy_sequence(source, begin, row("tokens"), row("targets"));
}

}  // namespace

std::atomic<bool> stop_requested{false};

void require_same_flags(ashlar::Communicator& world, const Options& options) {
  try {
    ashlar::require_agreement(world, "flags", agreement_entries(options));
  } catch (const ashlar::InvalidArgument& error) {
    throw ashlar::InvalidArgument(
        fmt::format("{}; start every rank with the same flags", error.what()));
  }
}

ashlar::GptTrace gpt_trace(const Options& options, std::int64_t batch, double dropout) {
  const auto dtype = options.precision == "bf16" ? ashlar::DType::bf16 : ashlar::DType::f32;
  return {batch, options.seq, dtype, dropout, options.freeze};
}

ashlar::Recompute recompute_of(const std::string& name) {
  if (name == "none") return ashlar::Recompute::none;
  if (name == "selective") return ashlar::Recompute::selective;
  if (name == "per-unit") return ashlar::Recompute::per_unit;
  return name == "budget" ? ashlar::Recompute::budget : ashlar::Recompute::cheap;
}

ashlar::TrainConfig train_config(const Options& options) {
  ashlar::TrainConfig config;
  config.zero = {options.stage, options.bucket, options.prefetch, options.overlap, options.reshard};
  config.precision.parameter =
      options.precision == "bf16" ? ashlar::DType::bf16 : ashlar::DType::f32;
  config.precision.reduce =
      options.reduce_dtype == "bf16" ? ashlar::DType::bf16 : ashlar::DType::f32;
  config.optimizer =
      ashlar::AdamW{options.lr, options.betas[0], options.betas[1], 1e-8, options.weight_decay};
  const auto kind = options.schedule == "cosine" ? ashlar::Schedule::Kind::cosine
                                                 : ashlar::Schedule::Kind::constant;
  config.schedule = {kind, options.lr, options.warmup, options.steps};
  config.clip = options.clip;
  config.micro_batches = options.accumulate;
  config.reduce = options.reduce == "each" ? ashlar::ReduceWhen::each : ashlar::ReduceWhen::last;
  config.recompute = recompute_of(options.recompute);
  config.memory_budget = options.memory_budget;
  config.seed = static_cast<std::uint64_t>(options.seed);
  config.samples = options.batch;
  config.threads = options.threads;
  return config;
}

Trainer::Trainer(ashlar::Communicator& world, const Options& options, int ranks_in_process)
    : world_(world), options_(options), ranks_in_process_(ranks_in_process) {
  world_.set_timeout(std::chrono::milliseconds(static_cast<std::int64_t>(options_.timeout * 1000)));
  if (options_.threads == 0) options_.threads = default_threads(world_);
  ashlar::collectively(world_, [&] {
    open_data();
    if (leads()) require_writable();
  });
  build();
  start_weights();
  ashlar::collectively(world_, [&] {
    if (!leads() || options_.metrics.empty()) return;
    std::optional<std::int64_t> resumed_step;
    if (!options_.resume.empty()) resumed_step = train_->steps();
    metrics_.emplace(options_.metrics, resumed_step);
  });
}

void Trainer::open_data() {
  model_ = ashlar::gpt_config(options_.model);
  const ashlar::Holdout holdout{options_.validation, static_cast<std::uint64_t>(options_.seed)};
  if (!options_.text.empty()) {
    corpus_ = ashlar::open_text(options_.text, holdout, model_.vocabulary);
  } else if (!options_.tokens.empty()) {
    corpus_ = ashlar::open_tokens(options_.tokens, model_.vocabulary, holdout);
  } else {
    corpus_.train = ashlar::synthetic_tokens(kSyntheticTokens, model_.vocabulary,
                                             static_cast<std::uint64_t>(options_.seed));
  }
  sampler_.emplace(*corpus_.train, options_.seq + 1, static_cast<std::uint64_t>(options_.seed));
  if (!corpus_.validation) return;
  validation_starts_ = ashlar::validation_windows(
      *corpus_.validation, options_.seq + 1, kValidationBatches * options_.batch * world_.size());
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
  if (!options_.plot.empty()) require("--plot", options_.plot, options_.plot.parent_path());
}

void Trainer::build() {
  const auto loss = [&](ashlar::Tracer& t) {
    return gpt_loss(t, model_, gpt_trace(options_, options_.batch, options_.dropout));
  };
  std::vector<ashlar::ForwardModel> forwards;
  forwards.push_back([&](ashlar::Tracer& t) {
    t.output("loss", gpt_loss(t, model_, gpt_trace(options_, options_.batch, 0)));
  });
  if (options_.sample > 0)
    forwards.push_back(
        [&](ashlar::Tracer& t) { gpt_next_token(t, model_, gpt_trace(options_, 1, 0)); });
  train_.emplace(world_, loss, train_config(options_), forwards);
  for (const std::string& pattern : options_.freeze)
    if (std::ranges::none_of(train_->layout().parameters(), [&](const ashlar::Parameter& p) {
          return ashlar::matches_pattern(p.name, pattern);
        }))
      throw ashlar::InvalidArgument(
          fmt::format("--freeze {}: no parameter is named so; names are like "
                      "h.0.attn.c_attn.weight, wte.weight and ln_f.bias",
                      pattern));
}

void Trainer::start_weights() {
  if (!options_.init.empty()) ashlar::load_pretrained(world_, options_.init, *train_);
  if (options_.resume.empty()) return;
  const auto shards = train_->shards();
  const auto counters = nlohmann::json::parse(
      ashlar::load_checkpoint(world_, options_.resume, train_->layout(), shards));
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
  train_->restore_from_shards();
  train_->set_steps(counters["step"].get<std::int64_t>());
}

void Trainer::run() {
  const std::int64_t first = train_->steps() + 1;
  {
    Progress progress(stderr, leads() ? progress_mode(stderr, options_.quiet) : ProgressMode::quiet,
                      first, options_.steps);
    while (train_->steps() < options_.steps && !stop_) {
      last_ = step();
      require_finite(last_);
      if (validates_now()) last_.validation_loss = validation_loss_ = validate();
      if (leads()) {
        progress.update(last_,
                        std::chrono::duration<double>(Clock::now().time_since_epoch()).count());
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

StepMetrics Trainer::step() {
  const auto start = Clock::now();
  const ashlar::SentBytes before = world_.sent_bytes();
  const std::int64_t number = train_->steps() + 1;
  const ashlar::StepResult result = train_->step([&](std::int64_t micro_batch, const Batch& batch) {
    for (std::int64_t b = 0; b < options_.batch; ++b) {
      const std::int64_t begin =
          sampler_->start(number, micro_batch, world_.rank() * options_.batch + b);
      fill_row(*corpus_.train, begin, batch, b, options_.seq);
    }
  });
  StepMetrics metrics;
  metrics.step = number;
  metrics.loss = result.loss;
  metrics.grad_norm = result.grad_norm;
  metrics.learning_rate = result.learning_rate;
  metrics.tokens = world_.size() * options_.batch * options_.seq * options_.accumulate;
  metrics.seconds = {seconds_since(start), result.seconds_forward, result.seconds_backward,
                     result.seconds_exposed, result.seconds_update};
  metrics.flops = result.flops;
  metrics.peak = {result.memory.peak, result.memory.total};
  metrics.at_peak = {result.memory.at_peak, result.memory.fragmentation, result.memory.padding};
  const ashlar::SentBytes after = world_.sent_bytes();
  for (std::size_t kind = 0; kind < metrics.sent.size(); ++kind)
    metrics.sent[kind] = after[kind] - before[kind];
  exchange(metrics);
  metrics.tokens_per_second = static_cast<double>(metrics.tokens) / metrics.seconds.total;
  return metrics;
}

void Trainer::exchange(StepMetrics& metrics) {
  // Memory is the same Program's on every rank; what ranks differ in is time, traffic and signals.
  std::array<double, 12> mine{stop_requested ? 1.0 : 0.0, trouble_ ? 1.0 : 0.0,
                              metrics.seconds.total,      metrics.seconds.forward,
                              metrics.seconds.backward,   metrics.seconds.communication_exposed,
                              metrics.seconds.update};
  for (std::size_t kind = 0; kind < metrics.sent.size(); ++kind)
    mine[7 + kind] = static_cast<double>(metrics.sent[kind]);
  for (const auto& rank : gather(world_, mine, "step metrics"))
    std::ranges::transform(mine, rank, mine.begin(),
                           [](double a, double b) { return std::max(a, b); });
  stop_ = mine[0] > 0;
  if (mine[1] > 0) require_metrics_written();
  metrics.seconds = {mine[2], mine[3], mine[4], mine[5], mine[6]};
  for (std::size_t kind = 0; kind < metrics.sent.size(); ++kind)
    metrics.sent[kind] = static_cast<std::int64_t>(mine[7 + kind]);
}

void Trainer::write_metrics(const std::string& line) {
  if (!metrics_ || trouble_) return;
  try {
    metrics_->write(line);
  } catch (const ashlar::InvalidArgument&) {
    trouble_ = std::current_exception();
  }
}

void Trainer::require_metrics_written() {
  ashlar::collectively(world_, [&] {
    if (trouble_) std::rethrow_exception(trouble_);
  });
}

bool Trainer::validates_now() const {
  if (!corpus_.validation) return false;
  const bool last = stop_ || train_->steps() == options_.steps;
  return last || (options_.validate_every > 0 && train_->steps() % options_.validate_every == 0);
}

double Trainer::validate() {
  const std::int64_t per_batch = options_.batch * world_.size();
  const auto windows = static_cast<std::int64_t>(validation_starts_.size());
  const std::int64_t batches = std::max<std::int64_t>(1, windows / per_batch);
  double sum = 0;
  for (std::int64_t n = 0; n < batches; ++n) {
    const Batch outputs = train_->forward(kEvaluate, [&](std::int64_t, const Batch& batch) {
      for (std::int64_t b = 0; b < options_.batch; ++b) {
        // Fewer windows than one batch: they are taken in turn.
        const std::int64_t w = (n * per_batch + world_.rank() * options_.batch + b) % windows;
        fill_row(*corpus_.validation, validation_starts_[static_cast<std::size_t>(w)], batch, b,
                 options_.seq);
      }
    });
    sum += static_cast<double>(*outputs.at("loss").as<float>());
  }
  return sum / static_cast<double>(batches);
}

void Trainer::require_finite(const StepMetrics& metrics) {
  if (std::isfinite(metrics.loss) && std::isfinite(metrics.grad_norm)) return;
  const int bad = train_->first_bad_parameter();
  throw ashlar::InvalidArgument(fmt::format(
      "step {}: loss {} and gradient norm {} are not finite; {}; try a lower --lr, more --warmup "
      "or --clip 1",
      metrics.step, metrics.loss, metrics.grad_norm,
      bad < 0 ? "all gradients are finite"
              : fmt::format("the first gradient that is not is that of {}",
                            train_->layout().parameters()[static_cast<std::size_t>(bad)].name)));
}

void Trainer::save() {
  const nlohmann::json counters{{"step", train_->steps()}, {"seed", options_.seed}};
  ashlar::save_checkpoint(world_, options_.save, train_->layout(), train_->shards(),
                          counters.dump());
}

void Trainer::finish() {
  if (corpus_.validation && !validation_loss_) validation_loss_ = validate();  // no step was left
  if (!options_.save.empty()) save();
  if (!options_.export_to.empty()) {
    const bool bf16 = options_.precision == "bf16";
    ashlar::export_pretrained(world_, options_.export_to, *train_,
                              bf16 ? ashlar::DType::bf16 : ashlar::DType::f32,
                              ashlar::to_config_json(model_, bf16 ? "bfloat16" : "float32"));
  }
  const std::string text = options_.sample > 0 && !stop_ ? sample() : "";
  const auto reports = gather_reports();
  Summary end = summary();
  ashlar::collectively(world_, [&] {
    if (!leads()) return;
    write_metrics(to_line(end));
    if (trouble_) std::rethrow_exception(trouble_);
    if (!options_.plot.empty())
      write_plot(options_.plot,
                 to_svg(curves_, fmt::format("{} on {} ranks, ZeRO stage {}", model_.name,
                                             world_.size(), options_.stage)));
    if (options_.quiet) return;
    fmt::print("{}", report_table(zero_case(options_, model_, train_->layout()), reports));
    if (validation_loss_) fmt::print("validation loss {:.4f} nats/token\n", *validation_loss_);
    if (!text.empty()) fmt::print("sample:\n{}\n", text);
    if (!options_.plot.empty()) fmt::print("curves: {}\n", options_.plot.string());
  });
}

}  // namespace train_gpt
