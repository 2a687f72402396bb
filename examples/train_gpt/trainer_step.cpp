// A step and a validation of a run, and what the ranks tell each other after each.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include "ashlar/error.hpp"
#include "train_gpt/gather.hpp"
#include "train_gpt/trainer.hpp"

namespace train_gpt {
namespace {

using ashlar::Batch;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

StepMetrics Trainer::step() {
  const auto start = Clock::now();
  const ashlar::SentBytes before = train_->sent_bytes();
  const std::int64_t number = train_->steps() + 1;
  const ashlar::StepResult result = train_->step([&](std::int64_t micro_batch, const Batch& batch) {
    for (std::int64_t b = 0; b < options_.batch; ++b) {
      const std::int64_t begin =
          sampler_->start(number, micro_batch, world_.rank() * options_.batch + b);
      fill(*corpus_.train, begin, batch, b);
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
  metrics.replayed = result.replayed;
  metrics.peak = {result.memory.peak, result.memory.total};
  metrics.at_peak = {result.memory.at_peak, result.memory.fragmentation, result.memory.padding};
  const ashlar::SentBytes after = train_->sent_bytes();
  for (std::size_t kind = 0; kind < metrics.sent.size(); ++kind)
    metrics.sent[kind] = after[kind] - before[kind];
  own_ = {{}, metrics.peak, metrics.sent};
  exchange(metrics);
  metrics.tokens_per_second = static_cast<double>(metrics.tokens) / metrics.seconds.total;
  return metrics;
}

void Trainer::exchange(StepMetrics& metrics) {
  constexpr std::size_t kNumbers = 7 + ashlar::kTrafficKinds + ashlar::kCategories;
  std::array<double, kNumbers> mine{
      stop_requested ? 1.0 : 0.0, static_cast<double>(trouble_.kind),
      metrics.seconds.total,      metrics.seconds.forward,
      metrics.seconds.backward,   metrics.seconds.communication_exposed,
      metrics.seconds.update};
  std::ranges::copy(metrics.peak.category, std::ranges::copy(metrics.sent, mine.begin() + 7).out);
  for (const auto& rank : gather(world_, mine, "step metrics"))
    std::ranges::transform(mine, rank, mine.begin(),
                           [](double a, double b) { return std::max(a, b); });
  auto next = mine.begin();
  stop_ = *next++ > 0;
  const auto trouble = static_cast<Trouble::Kind>(*next++);
  metrics.seconds = {next[0], next[1], next[2], next[3], next[4]};
  next += 5;
  for (std::int64_t& bytes : metrics.sent) bytes = static_cast<std::int64_t>(*next++);
  for (std::int64_t& bytes : metrics.peak.category) bytes = static_cast<std::int64_t>(*next++);
  if (trouble == Trouble::Kind::metrics && !options_.save.empty()) save();
  if (trouble != Trouble::Kind::none) require_no_trouble();
}

void Trainer::require_finite(const StepMetrics& metrics) {
  if (std::isfinite(metrics.loss) && std::isfinite(metrics.grad_norm)) return;
  const int bad = train_->first_bad_parameter();
  const auto number = [](double x) { return std::isnan(x) ? "nan" : fmt::format("{}", x); };
  const std::string where =
      bad < 0 ? "all gradients are finite"
              : fmt::format("the first gradient that is not is that of {}",
                            train_->layout().parameters()[static_cast<std::size_t>(bad)].name);
  ashlar::collectively(world_, [&] {
    throw ashlar::InvalidArgument(fmt::format(
        "step {}: loss {} and gradient norm {} are not finite; {}; try a lower --lr, more "
        "--warmup or --clip 1",
        metrics.step, number(metrics.loss), number(metrics.grad_norm), where));
  });
}

void Trainer::fill(const ashlar::TokenSource& source, std::int64_t begin, const Batch& batch,
                   std::int64_t b) {
  const auto row = [&](const char* name) {
    return batch.at(name).span<std::int32_t>().subspan(static_cast<std::size_t>(b * options_.seq),
                                                       static_cast<std::size_t>(options_.seq));
  };
  try {
    ashlar::copy_sequence(source, begin, row("tokens"), row("targets"));
  } catch (const ashlar::InvalidArgument&) {
    for (const char* name : {"tokens", "targets"}) std::ranges::fill(row(name), 0);
    trouble_ = {Trouble::Kind::data, std::current_exception()};
  }
}

void Trainer::write_metrics(const std::string& line) {
  if (!metrics_ || trouble_.error) return;
  try {
    metrics_->write(line);
  } catch (const ashlar::InvalidArgument&) {
    trouble_ = {Trouble::Kind::metrics, std::current_exception()};
  }
}

void Trainer::require_no_trouble() {
  ashlar::collectively(world_, [&] {
    if (trouble_.error) std::rethrow_exception(trouble_.error);
  });
}

bool Trainer::validates_now() const {
  if (!corpus_.validation || stop_) return false;  // who is told to stop saves at once
  return train_->steps() == options_.steps ||
         (options_.validate_every > 0 && train_->steps() % options_.validate_every == 0);
}

double Trainer::validate() {
  const auto windows = static_cast<std::int64_t>(validation_starts_.size());
  const std::int64_t per_batch = options_.batch * world_.size();
  double sum = 0;
  std::int64_t counted = 0;
  for (; counted < windows; counted += per_batch)
    sum += static_cast<double>(per_batch) * evaluate(counted);
  const std::int64_t repeated = counted - windows;  // the last window filled the last batch
  if (repeated > 0) sum -= static_cast<double>(repeated) * evaluate(windows - 1);
  require_no_trouble();
  return sum / static_cast<double>(windows);
}

double Trainer::evaluate(std::int64_t first_window) {
  const auto last = static_cast<std::int64_t>(validation_starts_.size()) - 1;
  const Batch& outputs = train_->forward(evaluate_, [&](std::int64_t, const Batch& batch) {
    for (std::int64_t b = 0; b < options_.batch; ++b) {
      const std::int64_t w = std::min(last, first_window + world_.rank() * options_.batch + b);
      fill(*corpus_.validation, validation_starts_[static_cast<std::size_t>(w)], batch, b);
    }
  });
  return static_cast<double>(*outputs.at("loss").as<float>());
}

}  // namespace train_gpt
