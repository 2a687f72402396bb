// Values that backward makes again instead of keeping them.
#pragma once

#include "ashlar/graph.hpp"

namespace ashlar {

/// Where backward reads an output that its op can rebuild (OpDef::rebuild: normalised activations,
/// gelu), a node before the first such reader makes it again, so that the forward value dies in
/// forward. For a few element-wise passes a GPT block keeps 10 B T C elements instead of 16.
/// Changes no bit of any result.
Graph rebuild_in_backward(const Graph& graph);

}  // namespace ashlar
