// What the run ran on, and how much memory it really held.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "ashlar/communicator.hpp"
#include "cli/flags/seat.hpp"

namespace train_gpt {

struct Hardware {
  std::string cpu;                // "AMD EPYC 9B45", as the kernel says
  int cores = 0;                  // that this process may use: by affinity and by its container
  std::int64_t memory_bytes = 0;  // of the machine, or of the container when that is less
  std::string device = "cpu";     // "cuda:0": this rank's
  std::int64_t device_memory_bytes = 0;  // of a GPU
};

/// Unknown parts stay "unknown" or 0. @param device what the rank's step runs on
Hardware detect_hardware(ashlar::Device device = {});
nlohmann::ordered_json to_json(const Hardware& hardware);

using ashlar::cli::Seat;
using ashlar::cli::share_of_cores;
using ashlar::cli::take_seat;

/// The device of this rank: with "cuda" its node's GPUs in turn. @param text a checked --device
ashlar::Device device_of(const std::string& text, const ashlar::Communicator& world);

/// The least of all ranks' shares: results depend on the number of threads, so that all take the
/// same. Collective.
int default_threads(ashlar::Communicator& world);

/// Measures how far a stretch of the program raised the resident set: start it before the model is
/// built.
///
/// Peak = VmHWM (reset at the start through /proc/self/clear_refs) - resident bytes at the start. A
/// page of shared memory is resident in every process that touched it; each shall count once, at
/// its owner, so what shared memory grew by beyond this rank's own windows is taken off. Ranks that
/// are threads share the process: each has its N-th.
class ResidentMeter {
 public:
  ResidentMeter();
  /// @param own_window_bytes shared memory that this rank allocated (0 for threads and for MPI
  /// messages)
  /// @param ranks_in_process N for thread ranks, else 1
  std::int64_t peak_bytes(std::int64_t own_window_bytes, int ranks_in_process) const;
  /// The kernel did not let the peak be reset: peak_bytes may hold an earlier, higher one.
  bool upper_bound_only() const { return !reset_; }

 private:
  bool reset_;
  std::int64_t resident_;
  std::int64_t shared_;
};

}  // namespace train_gpt
