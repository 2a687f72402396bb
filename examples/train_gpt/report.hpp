// The table at the end of a run: bytes by category and bytes sent, per rank, beside what ZeRO's
// formulas say.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "train_gpt/metrics.hpp"

namespace train_gpt {

/// What the formulas depend on.
struct ZeroCase {
  std::int64_t trainable = 0;  // parameters
  std::int64_t frozen = 0;
  int ranks = 1;
  int stage = 0;
  bool bf16 = false;       // parameters and gradients
  bool bf16_wire = false;  // gradients on the wire
  std::int64_t accumulate = 1;
  bool reduce_each = false;
  bool reshard = true;
};

/// Bytes per rank with AdamW (Rajbhandari et al., "ZeRO", SC 2020, section 5, with 12 bytes of fp32
/// master and moments per bf16 parameter and 8 of moments per fp32 one): S is divided by N from
/// stage 1, gradients from 2, parameters at 3. Gradients stay whole when they are reduced after the
/// last of several micro-batches only.
ModelStateBytes state_formula(const ZeroCase& zero);

/// Bytes that a rank sends per step: (N - 1) / N of all parameters for each time they are gathered
/// or reduced (section 7). Every parameter is taken to be gathered once forward and once backward
/// at stage 3.
struct TrafficFormula {
  std::int64_t all_gather = 0;
  std::int64_t reduce_scatter = 0;
};
TrafficFormula traffic_formula(const ZeroCase& zero);

/// What one rank measured.
struct RankReport {
  ModelStateBytes state;
  PeakBytes peak;
  ashlar::SentBytes sent{};  // per step
};

/// One column per rank up to four, else the lowest and the highest.
std::string report_table(const ZeroCase& zero, std::span<const RankReport> ranks);

}  // namespace train_gpt
