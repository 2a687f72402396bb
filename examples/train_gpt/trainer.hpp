// One rank's training run: data in, steps, validation, checkpoints, and at the end the report.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/data.hpp"
#include "ashlar/nn/language_model.hpp"
#include "ashlar/train_step.hpp"
#include "train_gpt/hardware.hpp"
#include "train_gpt/metrics.hpp"
#include "train_gpt/options.hpp"
#include "train_gpt/plot.hpp"
#include "train_gpt/report.hpp"

namespace train_gpt {

/// Set by SIGTERM: the run ends after the step.
extern std::atomic<bool> stop_requested;

/// Collective. @throws InvalidArgument on every rank when ranks were given different flags.
void require_same_flags(ashlar::Communicator& world, const Options& options);

/// What the flags say about the step.
ashlar::TrainConfig train_config(const Options& options);
/// Models of bytes (tiny, small) have GPT-2's vocabulary with --tokens.
ashlar::LanguageModel model_of(const Options& options);

/// What to say of a checkpoint with these counters where libraries computed otherwise on a GPU of
/// the same kind; empty where there is nothing to say.
std::string libraries_note(std::string_view counters, const ashlar::LibraryChoices& now);

class Trainer {
 public:
  /// Collective. @throws InvalidArgument on every rank for input that cannot be used.
  Trainer(ashlar::Communicator& world, const Options& options, int ranks_in_process);
  void run();

 private:
  void open_data();
  void open_trace();
  /// What is written at the end is known to have a place at the start.
  void require_writable() const;
  void build();
  void start_weights();
  /// Of a checkpoint's counters. @throws InvalidArgument unless they are of such a run.
  std::int64_t step_of(const std::string& counters) const;
  /// Where no step is left.
  void tell_nothing_to_do() const;
  StepMetrics step();
  /// What all ranks must know of each other after a step: the slowest, the most sent, whether one
  /// was told to stop, and whether one met trouble.
  void exchange(StepMetrics& metrics);
  /// Row b of a batch; tokens that cannot be used become 0, and trouble_.
  void fill(const ashlar::TokenSource& source, std::int64_t begin, const ashlar::Batch& batch,
            std::int64_t b);
  /// On the rank that has the file; a failure becomes trouble_.
  void write_metrics(const std::string& line);
  /// @throws ashlar::InvalidArgument on every rank when one has trouble. Collective.
  void require_no_trouble();
  bool validates_now() const;
  /// The mean over all validation windows.
  double validate();
  /// The mean over the batch of all ranks from a window on; past the last one it is repeated.
  double evaluate(std::int64_t first_window);
  void require_finite(const StepMetrics& metrics);
  void save();
  void finish();
  std::string sample();
  Summary summary();
  void print_report(const std::vector<RankReport>& reports, const std::string& text) const;
  std::vector<RankReport> gather_reports();

  /// Of one rank, until the ranks next speak of it; none but metrics lets a checkpoint be saved.
  struct Trouble {
    enum class Kind : std::uint8_t { none, metrics, data };
    Kind kind = Kind::none;
    std::exception_ptr error;
  };

  bool leads() const { return world_.rank() == 0; }
  bool on_gpu() const { return device_.type == ashlar::DeviceType::cuda; }

  ashlar::Communicator& world_;
  Options options_;
  int ranks_in_process_;
  ashlar::Device device_;
  std::int64_t free_at_start_ = 0;                     // of a GPU, in bytes
  ashlar::LanguageModel model_ = ashlar::GptConfig{};  // open_data reads the right one
  ashlar::Corpus corpus_;
  std::optional<ashlar::Sampler> sampler_;
  std::vector<std::int64_t> validation_starts_;
  bool samples_ = false;
  ResidentMeter resident_;
  std::optional<ashlar::TraceWriter> trace_;
  std::optional<ashlar::TrainStep> train_;
  int evaluate_ = -1, next_token_ = -1;  // forward models of train_
  std::optional<MetricsFile> metrics_;
  Trouble trouble_;
  Curves curves_;
  StepMetrics last_;  // of all ranks
  RankReport own_;    // of the last step
  std::optional<double> validation_loss_;
  bool stop_ = false;
};

}  // namespace train_gpt
