// The pass behind MicroBatchOrder::layers: all micro-batches go through one unit before the next,
// so that a unit is gathered once per direction and reduced once, however many they are
// (layered gradient accumulation: Lamy-Poirier, arXiv:2106.02679).
#pragma once

#include "ashlar/graph.hpp"

namespace ashlar {

/// @param joint forward and backward of one micro-batch, before it is sharded
/// @return the graph of all K: every run of nodes of one unit stands K times, one micro-batch after
/// the other; data inputs and what units hand on exist once per micro-batch. The loss and the
/// gradients named by gradient_name() are sums over the micro-batches, in their order, complete
/// where their run ends; other outputs are the last micro-batch's.
Graph in_layer_order(const Graph& joint, std::int64_t micro_batches);

}  // namespace ashlar
