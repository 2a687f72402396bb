// What the user sees while training: one line that updates itself on a terminal, a plain line every
// few seconds elsewhere, nothing when quiet.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "train_gpt/metrics.hpp"

namespace train_gpt {

enum class ProgressMode : std::uint8_t { quiet, plain, terminal };

/// terminal when `stream` is one, or when the environment says ASHLAR_PROGRESS=terminal (a launcher
/// hides the terminal from its ranks).
ProgressMode progress_mode(std::FILE* stream, bool quiet);

/// "1:02:03", "4:05".
std::string format_duration(double seconds);

class Progress {
 public:
  /// @param first_step the first step of this run (1, or the one after the checkpoint's).
  Progress(std::FILE* stream, ProgressMode mode, std::int64_t first_step, std::int64_t last_step);
  /// Ends the updating line, so that what is printed next starts on its own.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// @param now seconds on a steady clock.
  void update(const StepMetrics& metrics, double now);

 private:
  std::string line(const StepMetrics& metrics, double now) const;

  std::FILE* stream_;
  ProgressMode mode_;
  std::int64_t first_step_;
  std::int64_t last_step_;
  std::optional<double>
      first_time_;  // when the first step was done: its time holds set-up and is no measure
  double last_printed_ = 0;
  std::optional<double> validation_loss_;
  bool open_line_ = false;
};

}  // namespace train_gpt
