// Values that backward makes again instead of keeping them. Changes no bit of any result: what is
// made again is made by the same row with the same attributes, or by OpDef::rebuild.
#pragma once

#include <vector>

#include "ashlar/graph.hpp"

namespace ashlar {

/// By ValueId of a joint graph: does backward make this forward value again?
using Remade = std::vector<bool>;

/// True where `id` may be remade: a forward value that is neither a view nor an output. Readers in
/// another unit's backward go on reading forward's value: making it again there would gather that
/// unit's parameters once more.
bool may_be_remade(const Graph& graph, ValueId id);

/// True when the op of `node` can rebuild its output `id` (OpDef::rebuild).
bool can_rebuild(const Node& node, ValueId id);
/// True when it does: its other outputs are kept, so that the node itself need not run again.
bool rebuilds_alone(const Node& node, ValueId id, const Remade& remade);

/// What its op rebuilds by a few element-wise passes (OpDef::rebuild): normalised activations and
/// gelu. A GPT block keeps 10 B T C elements instead of 16.
Remade cheap_to_remake(const Graph& graph);
/// Besides, what attention makes (Korthikanti et al., arXiv:2205.05198, section 5).
Remade attention_remade(const Graph& graph);
/// All but what enters a unit (Chen et al., arXiv:1604.06174, section 3, a segment per unit), the
/// last unit left alone: its backward follows at once.
Remade units_remade(const Graph& graph);

/// The nodes that make the chosen values once more stand before the first backward node that reads
/// them, and forward's values die in forward. Nodes that nobody reads are dropped.
/// @param graph forward and backward, before it is sharded
Graph rematerialize(const Graph& graph, const Remade& remade);

}  // namespace ashlar
