// What other tools print for the same question, by their formulas, beside why ours differs. Each
// formula is a published one; sizes in bytes.
#pragma once

#include <cstdint>

namespace ashlar::compat {

/// Rajbhandari et al., "ZeRO", arXiv:1910.02054, table 1: mixed-precision Adam with 2 bytes of
/// parameter, 2 of gradient and 12 of optimizer state per parameter; fractions stay.
double zero_paper_bytes(double parameters, int ranks, int stage);

/// DeepSpeed's estimate_zero2_model_states_mem_needs and estimate_zero3_model_states_mem_needs
/// (deepspeed/runtime/zero), with its buffer factor of 1.5.
struct DeepSpeedCase {
  double parameters = 0;
  double largest_layer = 0;  // parameters of the module that holds most
  int ranks_per_node = 1;
  int nodes = 1;
  bool offload_optimizer = false;
  bool offload_parameters = false;  // stage 3
  bool zero_init = true;            // stage 3: parameters are sharded as they are made
};
struct HostAndDevice {
  double host = 0;  // of a node
  double device = 0;
};
/// @param before_18 as it was computed before 18 bytes per parameter were sharded
HostAndDevice deepspeed_zero2(const DeepSpeedCase& c, bool before_18 = false);
HostAndDevice deepspeed_zero3(const DeepSpeedCase& c);

/// Hugging Face accelerate's estimate-memory: weights alone, the largest module, and "training
/// using Adam", four times the weights.
struct AccelerateEstimate {
  double largest_layer = 0, total = 0, training = 0;
};
AccelerateEstimate accelerate(double parameters, double largest_layer, double bytes_per_parameter);

/// Korthikanti et al., arXiv:2205.05198, equations 1 to 6: activation bytes of a rank that holds
/// `layers` layers, 16-bit, sequence s, micro-batch b, width h, a heads, t ranks of tensor
/// parallelism.
enum class Activations : std::uint8_t {
  none,
  tensor,
  sequence,
  selective,
  sequence_selective,
  full
};
struct TransformerShape {
  std::int64_t layers = 0, heads = 0, hidden = 0, sequence = 0, batch = 1;
  int tensor_parallel = 1;
};
double activation_bytes(const TransformerShape& shape, Activations how);

/// EleutherAI cookbook's calc_transformer_mem with activation checkpointing: 2 bytes of parameter,
/// 4 of gradient, 12 of optimizer state, 34 s b h L of activations, and DeepSpeed's buffers. Ranks
/// of tensor and pipeline parallelism share parameters alone; what ZeRO shards it divides by all
/// ranks, theirs included, though parameters have been divided by them before.
struct EleutherCase {
  double parameters = 0;
  TransformerShape shape;
  int ranks = 1;  // all of them
  int stage = 0;
  int pipeline_parallel = 1;
  bool partition_activations = false;  // over the ranks of tensor parallelism (ZeRO-R)
};
struct EleutherEstimate {
  double model = 0, gradient = 0, optimizer = 0, activation = 0;
  double communication = 0;  // an all-gather bucket; at stage 3 live parameters; none for one rank

  double sum() const { return model + gradient + optimizer + activation + communication; }
};
EleutherEstimate eleuther(const EleutherCase& c);

}  // namespace ashlar::compat
