// The pass that turns a step for one rank into a step for N: parameters come from gathers,
// gradients go to reductions, each rank updates its shard.
#pragma once

#include "ashlar/graph.hpp"
#include "ashlar/optimizer.hpp"
#include "ashlar/sharding.hpp"

namespace ashlar {

struct ShardOptions {
  ZeroConfig zero;
  PrecisionPolicy precision;
  OptimizerConfig optimizer;
  std::int64_t micro_batches = 1;  // K
  bool reduce_each = true;         // reduce after each micro-batch, else once after the last
  double clip = 0;                 // 0: off
  bool layer_order = false;        // the graph holds all K micro-batches (in_layer_order)
  int replicas = 1;                // copies of the model state, each sharded over a group of ranks
  bool join_updates = false;       // of many flats in one node, where no gather waits between them
};

/// Names in graphs before this pass: the loss, its cotangent (an f32 scalar input) and gradients.
inline constexpr std::string_view kLoss = "loss";
inline constexpr std::string_view kLossCotangent = "loss_cotangent";
std::string gradient_name(std::string_view parameter);  // "gradient/<parameter>"

/// Names of states: "<flat>/parameter", "<flat>/gradient", "<flat>/master", "<flat>/m", ...
std::string state_name(const Flat& flat, std::string_view role);

/// The type that backward computes parameter gradients in: f32 where they are summed over
/// micro-batches before the reduction or travel in f32, else the parameter's.
DType local_gradient_dtype(const ShardOptions& options);
/// The type that reduced gradients are kept in.
DType gradient_dtype(const ShardOptions& options);
/// True when gradients are summed over the micro-batches before the ranks sum them once.
bool sums_locally(const ShardOptions& options);
/// True when those sums live in states from one micro-batch to the next.
bool keeps_local_sums(const ShardOptions& options);
/// True when every rank keeps whole gradients between backward and update.
bool keeps_whole_gradients(const ShardOptions& options);

/// @param graph forward only, or forward and backward with an output per trainable parameter named
/// gradient_name()
/// @param layout of graph.parameters over the ranks of a group
/// @return a graph whose inputs are data and states. Outputs: the global mean "loss"; in training
/// "grad_norm"; others as they were. Traffic and bytes as DESIGN section 5 gives them.
Graph shard(const Graph& graph, const FlatLayout& layout, const ShardOptions& options);

}  // namespace ashlar
