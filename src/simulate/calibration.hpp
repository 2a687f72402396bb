// The constants that turn a Program into the seconds that other software needed on real devices:
// cluster files with a few fitted numbers, and what that software does beside the Program.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sharding/compile_step.hpp"
#include "simulate/measurements.hpp"
#include "simulate/workload.hpp"

namespace ashlar::simulate {

/// What PyTorch's FSDP in eager mode does with the same step.
struct Software {
  double traffic_scale = 2;  // bytes of its unfused kernels by those of the Program's
  double logit_bytes = 40;   // moved per token and word of the vocabulary, loss and its backward
  double cast_bytes = 6;     // moved per gathered f32 parameter on its way to bf16
  bool overlap_reductions = true;
};

struct Calibration {
  Software software;
  std::map<std::string, Cluster> clusters;  // by Measurement::gpu
  std::vector<std::string> rows;            // row_ids that it was fitted on; empty: priors
};

/// @throws InvalidArgument as parse_cluster
Calibration parse_calibration(std::string_view json, const std::string& source);
/// The path of a file, or "llm-foundry-calibration", which comes with the program.
Calibration calibration(const std::string& name_or_path);

/// What cluster() takes, or a cluster of a calibration by its device: with
/// "llm-foundry-calibration:a100_80gb" kernels are as quick as in the runs that it was fitted to.
/// @throws InvalidArgument as those do, or naming the calibration's devices
Cluster cluster_or_calibrated(const std::string& name);
/// What it takes beside files.
std::vector<std::string> cluster_names();

/// The step of a measured run: stage 3, a unit per block, bf16, whole units made again where it
/// recomputes.
CompiledStep compile_measured(const Measurement& run);

/// Tokens per second of all ranks. @throws InvalidArgument for a device without a cluster
double predicted_tokens_per_second(const Measurement& run, const CompiledStep& step,
                                   const Calibration& calibration);

/// |predicted / measured - 1|, in parts.
struct Errors {
  double mean = 0, median = 0, maximum = 0;
};
Errors errors_of(std::vector<double> absolute);

/// Fits the free constants to the runs by least squares on logarithms (Gauss-Newton), each tied to
/// its prior: the traffic scale, the slowdown by overlap, and per device the efficiencies of
/// products and attention. A device without runs keeps its priors, moved by as much as the others'.
/// @param steps compiled, by run
Calibration fit(const Calibration& priors, const std::vector<Measurement>& runs,
                const std::vector<CompiledStep>& steps);

}  // namespace ashlar::simulate
