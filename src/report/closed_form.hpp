// ZeRO's formulas: bytes of model state per rank and bytes sent per step, from counts alone, where
// no model is traced.
#pragma once

#include <cstdint>

namespace ashlar {

struct ModelStateBytes {
  std::int64_t parameter = 0;
  std::int64_t gradient = 0;
  std::int64_t optimizer_state = 0;

  std::int64_t sum() const { return parameter + gradient + optimizer_state; }
};

/// What the formulas depend on.
struct ZeroCase {
  std::int64_t trainable = 0;  // parameters
  std::int64_t frozen = 0;
  int ranks = 1;     // that share one copy of the model state
  int replicas = 1;  // copies of it (ZeroConfig::group)
  int stage = 0;
  bool bf16 = false;       // or fp16: parameters and gradients
  bool bf16_wire = false;  // gradients on the wire
  std::int64_t accumulate = 1;
  bool reduce_each = false;
  bool layer_order = false;
  bool reshard = true;
  /// What collectives carry, with the padding of the layout, in elements.
  std::int64_t padded = 0;
  std::int64_t padded_trainable = 0;
  /// Of `padded`: units that are gathered once per micro-batch at stage 3, not for backward again.
  std::int64_t padded_once = 0;
  int optimizer_states = 2;  // f32 per trainable parameter, without the master of a 16-bit one
};

/// Bytes per rank (Rajbhandari et al., "ZeRO", SC 2020, section 5; with AdamW 12 bytes of fp32
/// master and moments per bf16 parameter and 8 of moments per fp32 one): S is divided by N from
/// stage 1, gradients from 2, parameters at 3. Gradients stay whole when they are reduced after the
/// last of several micro-batches only, unless these go through the model layer by layer.
/// Without padding: a lower bound on what a Program allocates.
ModelStateBytes state_formula(const ZeroCase& zero);

/// Bytes that a rank sends per step: (N - 1) / N of what is gathered or reduced, each time (section
/// 7). With M copies of the model state the f32 sums of the own shard go over all of them, once a
/// step: 2 (M - 1) / M of them. At stages 0 to 2 that is one gather of what was updated. At stage 3
/// a unit is gathered for forward and, unless it is kept (reshard off), for backward again. Once is
/// enough for the head, whose backward follows its forward at once; for an untied embedding, whose
/// gradient does not read it (a tied one is gathered for the head again); and for units without
/// trainable parameters in or before them, which backward does not reach.
struct TrafficFormula {
  std::int64_t all_gather = 0;
  std::int64_t reduce_scatter = 0;
  std::int64_t all_reduce = 0;

  std::int64_t sum() const { return all_gather + reduce_scatter + all_reduce; }
};
TrafficFormula traffic_formula(const ZeroCase& zero);

}  // namespace ashlar
