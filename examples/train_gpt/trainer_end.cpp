// What a run leaves and says when it ends: a checkpoint, the report, the summary line, a sample of
// text.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "ashlar/checkpoint.hpp"
#include "ashlar/device_memory.hpp"
#include "ashlar/pretrained.hpp"
#include "base/math/philox.hpp"
#include "ops/cuda_backend.hpp"
#include "train_gpt/gather.hpp"
#include "train_gpt/trainer.hpp"

namespace train_gpt {
namespace {

using ashlar::Batch;
using ashlar::Category;

constexpr double kTemperature = 0.8;
constexpr std::uint64_t kSampleStream = 0x53414d50;  // apart from what data and weights draw

ModelStateBytes model_state(const ashlar::TrainStep& train) {
  const auto bytes = train.state_bytes();
  const auto of = [&](Category category) { return bytes[static_cast<std::size_t>(category)]; };
  return {of(Category::parameter), of(Category::gradient), of(Category::optimizer_state)};
}

/// A token of softmax(logits / temperature), by inversion of one uniform number.
std::int32_t draw(std::span<const float> logits, double uniform) {
  const float top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> sums;
  double sum = 0;
  for (const float logit : logits) sums.push_back(sum += std::exp((logit - top) / kTemperature));
  const auto found = std::upper_bound(sums.begin(), sums.end(), uniform * sum);
  return static_cast<std::int32_t>(
      std::min<std::ptrdiff_t>(found - sums.begin(), static_cast<std::ptrdiff_t>(sums.size()) - 1));
}

}  // namespace

void Trainer::save() {
  nlohmann::json counters{{"step", train_->steps()}, {"seed", options_.seed}};
  const ashlar::LibraryChoices libraries = train_->library_choices();
  if (!libraries.device.empty())
    counters["libraries"] = {{"device", libraries.device}, {"hash", libraries.hash}};
  ashlar::save_checkpoint(world_, options_.save, train_->layout(), train_->shards(),
                          counters.dump());
}

void Trainer::finish() {
  if (!options_.save.empty()) save();
  if (!options_.export_to.empty()) {
    const bool bf16 = options_.precision == "bf16";
    ashlar::export_pretrained(world_, options_.export_to, *train_,
                              bf16 ? ashlar::DType::bf16 : ashlar::DType::f32,
                              model_.config_json(bf16 ? "bfloat16" : "float32"));
  }
  if (stop_) validation_loss_.reset();  // of an earlier step
  const bool no_step_left = corpus_.validation && !validation_loss_ && !stop_;
  if (no_step_left) validation_loss_ = validate();
  const std::string text = samples_ && !stop_ ? sample() : "";
  const auto reports = gather_reports();
  Summary end = summary();
  ashlar::collectively(world_, [&] {
    if (!leads()) return;
    write_metrics(to_line(end));
    if (trouble_.error) std::rethrow_exception(trouble_.error);
    if (trace_) trace_->close();
    if (!options_.quiet) print_report(reports, text);
    if (options_.plot.empty()) return;
    write_plot(options_.plot,
               to_svg(curves_, fmt::format("{} on {} ranks, ZeRO stage {}", model_.name(),
                                           world_.size(), options_.stage)));
    if (!options_.quiet) fmt::print("curves: {}\n", options_.plot.string());
  });
}

void Trainer::print_report(const std::vector<RankReport>& reports, const std::string& text) const {
  fmt::print("{}", report_table(zero_case(options_, world_.size(), model_.tied(), train_->layout()),
                                reports));
  if (validation_loss_) fmt::print("validation loss {:.4f} nats/token\n", *validation_loss_);
  if (!text.empty()) fmt::print("sample:\n{}\n", text);
  std::fflush(stdout);
}

std::string Trainer::sample() {
  // The context is real text of full length, so that the model sees what it was trained on.
  const ashlar::TokenSource& source = corpus_.validation ? *corpus_.validation : *corpus_.train;
  std::vector<std::int32_t> window(static_cast<std::size_t>(options_.seq));
  source.copy(0, window);
  std::vector<std::int32_t> generated;
  const auto key = static_cast<std::uint64_t>(options_.seed);
  const auto told_to_stop = [&] {
    const auto ranks = gather<int>(world_, stop_requested, "sampling");
    return std::ranges::max(ranks) > 0;
  };
  for (std::int64_t i = 0; i < options_.sample && !told_to_stop(); ++i) {
    const Batch& outputs = train_->forward(next_token_, [&](std::int64_t, const Batch& batch) {
      std::memcpy(batch.at("tokens").data, window.data(), window.size() * sizeof(std::int32_t));
    });
    const ashlar::TensorView logits = outputs.at("logits");
    const auto random = ashlar::philox(key, kSampleStream, static_cast<std::uint64_t>(i));
    generated.push_back(draw(logits.span<const float>(), ashlar::uniform(random[0])));
    std::rotate(window.begin(), window.begin() + 1, window.end());
    window.back() = generated.back();
  }
  if (model_.vocabulary() == 256 && options_.tokens.empty())
    return {generated.begin(), generated.end()};
  return fmt::format("{}", fmt::join(generated, " "));
}

std::vector<RankReport> Trainer::gather_reports() {
  return gather(world_, RankReport{model_state(*train_), own_.peak, own_.sent}, "reports");
}

Summary Trainer::summary() {
  const std::vector<std::int64_t> resident = gather(
      world_, resident_.peak_bytes(train_->window_bytes(), ranks_in_process_), "resident bytes");
  Summary end;
  end.parameters = train_->layout().elements();
  end.ranks = world_.size();
  end.stage = options_.stage;
  end.precision = options_.precision;
  end.model_state = model_state(*train_);
  const ashlar::MemoryUse planned = train_->planned();
  end.planned_peak = {planned.peak, planned.total};
  end.peak_resident_bytes = std::ranges::max(resident);
  const std::int64_t arenas = train_->allocated_bytes();
  end.outside_bytes = std::max<std::int64_t>(0, end.peak_resident_bytes - (on_gpu() ? 0 : arenas));
  if (on_gpu()) {
    end.driver_bytes =
        free_at_start_ - ashlar::device_bytes(device_).free - ranks_in_process_ * planned.total;
    end.attention_engine = ashlar::attention_engine(device_);
  }
  end.config = to_json(options_);
  end.hardware = to_json(detect_hardware(device_));
  return end;
}

}  // namespace train_gpt
