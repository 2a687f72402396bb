#include "report/compat.hpp"

#include <algorithm>
#include <cmath>

namespace ashlar::compat {

double zero_paper_bytes(double parameters, int ranks, int stage) {
  const auto share = [&](double bytes, bool sharded) {
    return parameters * bytes / (sharded ? ranks : 1);
  };
  return share(2, stage >= 3) + share(2, stage >= 2) + share(12, stage >= 1);
}

namespace {

constexpr double kBufferFactor = 1.5;

}  // namespace

HostAndDevice deepspeed_zero2(const DeepSpeedCase& c, bool before_18) {
  const int ranks = c.ranks_per_node * c.nodes;
  if (c.offload_optimizer)
    return {c.parameters * std::max(4 * ranks, 16) * kBufferFactor, 2 * c.parameters};
  const double device = before_18 ? 4 * c.parameters + std::floor(16 * c.parameters / ranks)
                                  : 2 * c.parameters + std::floor(18 * c.parameters / ranks);
  return {c.parameters * 4 * c.ranks_per_node * kBufferFactor, device};
}

HostAndDevice deepspeed_zero3(const DeepSpeedCase& c) {
  const int ranks = c.ranks_per_node * c.nodes;
  const double layer = 4 * c.largest_layer;
  const double whole = 4.0 * c.ranks_per_node;  // every rank builds the whole model in f32
  if (!c.offload_optimizer) {
    const double host = c.zero_init ? c.largest_layer * whole : c.parameters * whole;
    return {host * kBufferFactor, layer + std::floor(18 * c.parameters / ranks)};
  }
  const double kept = (c.offload_parameters ? 18.0 : 16.0) / c.nodes;
  const double host = c.parameters * (c.zero_init ? kept : std::max(whole, kept));
  const double device = c.offload_parameters ? 0 : std::floor(2 * c.parameters / ranks);
  return {host * kBufferFactor, layer + device};
}

AccelerateEstimate accelerate(double parameters, double largest_layer, double bytes_per_parameter) {
  const double total = parameters * bytes_per_parameter;
  return {largest_layer * bytes_per_parameter, total, 4 * total};
}

double activation_bytes(const TransformerShape& shape, Activations how) {
  const double sbh = static_cast<double>(shape.sequence) * static_cast<double>(shape.batch) *
                     static_cast<double>(shape.hidden);
  const double t = shape.tensor_parallel;
  const double attention = 5 * static_cast<double>(shape.heads) *
                           static_cast<double>(shape.sequence) / static_cast<double>(shape.hidden);
  const auto per_layer = [&] {
    switch (how) {
      case Activations::none:
        return 34 + attention;
      case Activations::tensor:
        return 10 + 24 / t + attention / t;
      case Activations::sequence:
        return (34 + attention) / t;
      case Activations::selective:
        return 10 + 24 / t;
      case Activations::sequence_selective:
        return 34 / t;
      case Activations::full:
        return 2.0;
    }
    return 0.0;
  };
  return sbh * static_cast<double>(shape.layers) * per_layer();
}

EleutherEstimate eleuther(const EleutherCase& c) {
  constexpr double kAllGatherBucket = 5e8, kLiveParameters = 1e9;  // the tool's defaults
  const auto share = [&](double bytes, bool sharded) {
    return c.parameters * bytes / (sharded ? c.ranks : 1);
  };
  const int parallel = c.shape.tensor_parallel * c.pipeline_parallel;
  TransformerShape held = c.shape;
  if (!c.partition_activations) held.tensor_parallel = 1;
  EleutherEstimate estimate{share(2, c.stage >= 3) / parallel, share(4, c.stage >= 2),
                            share(12, c.stage >= 1),
                            activation_bytes(held, Activations::sequence_selective), 0};
  if (c.ranks > 1 && c.stage >= 1) estimate.communication += 2 * kAllGatherBucket;
  if (c.ranks > 1 && c.stage >= 3) estimate.communication += 2 * kLiveParameters;
  return estimate;
}

}  // namespace ashlar::compat
