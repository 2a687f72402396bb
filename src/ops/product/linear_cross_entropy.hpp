// Joins the forward and the backward of the language-model head.
#pragma once

#include "ashlar/graph.hpp"

namespace ashlar {

/// Where a graph holds linear_cross_entropy and its gradient, and the loss's cotangent does not
/// depend on the loss, one node computes both: logits are multiplied once. Values keep their ids.
/// Changes no bit of any result. Runs after differentiation, before sharding.
Graph fuse_cross_entropy(Graph graph);

}  // namespace ashlar
