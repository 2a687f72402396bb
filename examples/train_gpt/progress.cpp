#include "train_gpt/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <string_view>

#include "ashlar/memory_resource.hpp"

namespace train_gpt {
namespace {

constexpr double kTerminalSeconds = 0.1;
constexpr double kPlainSeconds = 5;

}  // namespace

ProgressMode progress_mode(std::FILE* stream, bool quiet) {
  if (quiet) return ProgressMode::quiet;
  const char* wish = std::getenv("ASHLAR_PROGRESS");
  if (wish != nullptr && std::string_view(wish) == "terminal") return ProgressMode::terminal;
  return ::isatty(::fileno(stream)) == 1 ? ProgressMode::terminal : ProgressMode::plain;
}

std::string format_duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t minutes = whole / 60 % 60;
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, minutes, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

Progress::Progress(std::FILE* stream, ProgressMode mode, std::int64_t first_step,
                   std::int64_t last_step)
    : stream_(stream), mode_(mode), first_step_(first_step), last_step_(last_step) {}

Progress::~Progress() {
  if (open_line_) std::fputc('\n', stream_);
  std::fflush(stream_);
}

void Progress::update(const StepMetrics& metrics, double now) {
  if (mode_ == ProgressMode::quiet) return;
  if (metrics.validation_loss) validation_loss_ = metrics.validation_loss;
  const bool ends = metrics.step == first_step_ || metrics.step == last_step_;
  if (!first_time_) first_time_ = now;
  const double pause = mode_ == ProgressMode::terminal ? kTerminalSeconds : kPlainSeconds;
  if (!ends && now - last_printed_ < pause) return;
  last_printed_ = now;
  if (mode_ == ProgressMode::terminal) {
    fmt::print(stream_, "\r\x1b[K{}", line(metrics, now));
    open_line_ = true;
  } else {
    fmt::print(stream_, "{}\n", line(metrics, now));
  }
  std::fflush(stream_);
}

std::string Progress::line(const StepMetrics& m, double now) const {
  std::string text = fmt::format("step {}/{}  loss {:.4f}", m.step, last_step_, m.loss);
  if (validation_loss_) text += fmt::format("  validation {:.4f}", *validation_loss_);
  text += fmt::format("  {:.0f} tokens/s", m.tokens_per_second);
  const std::int64_t done = m.step - first_step_;
  if (done > 0) {
    const double seconds_per_step = (now - *first_time_) / static_cast<double>(done);
    text += fmt::format(
        "  {} left", format_duration(seconds_per_step * static_cast<double>(last_step_ - m.step)));
  }
  return text + fmt::format("  peak {}", ashlar::format_bytes(m.peak.total));
}

}  // namespace train_gpt
