// The numbers of a step and of a run, and the JSON lines that --metrics writes of them. The keys
// are an interface.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ashlar/category.hpp"
#include "ashlar/communicator.hpp"
#include "report/closed_form.hpp"

namespace train_gpt {

struct Seconds {
  double total = 0;
  double forward = 0;
  double backward = 0;
  double communication_exposed = 0;
  double update = 0;
};

/// Bytes: each category's own maximum, and the maximum of the sum; over ranks.
struct PeakBytes {
  ashlar::PerCategory<std::int64_t> category{};
  std::int64_t total = 0;
};

/// Bytes at the instant of the total; all of them add up to it.
struct AtPeak {
  ashlar::PerCategory<std::int64_t> category{};
  std::int64_t fragmentation = 0;
  std::int64_t padding = 0;
};

struct StepMetrics {
  std::int64_t step = 0;
  float loss = 0;  // nats per token, mean over the global batch
  std::optional<double> validation_loss;
  double grad_norm = 0;
  double learning_rate = 0;
  std::int64_t tokens = 0;  // this step, all ranks
  double tokens_per_second = 0;
  double flops = 0;       // this step, a rank's kernels, by their ops' cost
  bool replayed = false;  // rank 0's step, from CUDA graphs
  Seconds seconds;
  PeakBytes peak;
  AtPeak at_peak;
  ashlar::SentBytes sent{};  // this step, per rank (maximum)
};

struct Summary {
  std::int64_t parameters = 0;
  int ranks = 1;
  int stage = 0;
  std::string precision;
  ashlar::ModelStateBytes model_state;  // per rank
  PeakBytes planned_peak;
  std::int64_t outside_bytes = 0;
  std::int64_t peak_resident_bytes = 0;         // of the host
  std::optional<std::int64_t> driver_bytes;     // taken of a GPU beside the arenas of this process
  std::optional<std::string> attention_engine;  // what serves attention on a GPU
  nlohmann::ordered_json config;
  nlohmann::ordered_json hardware;
};

/// One line each, without the newline.
std::string to_line(const StepMetrics& metrics);
std::string to_line(const Summary& summary);

/// Writes lines to a file, each flushed before `write` returns.
class MetricsFile {
 public:
  /// @param resumed_step the step that the run goes on from: lines of later steps, which a run that
  /// was killed had taken beyond its checkpoint, are dropped, and a last line that it left torn;
  /// everything else stays. Without it the file starts anew.
  /// @throws ashlar::InvalidArgument naming the path when it cannot be opened.
  MetricsFile(const std::filesystem::path& path, std::optional<std::int64_t> resumed_step);
  /// @throws ashlar::InvalidArgument naming the path when the line cannot be written (a full disk).
  void write(const std::string& line);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace train_gpt
