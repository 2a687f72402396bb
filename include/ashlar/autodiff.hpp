// Reverse mode, graph to graph.
#pragma once

#include <span>
#include <vector>

#include "ashlar/graph.hpp"

namespace ashlar {

/// Appends to `tracer` the backward of everything computed so far.
/// @param outputs values whose cotangents are given
/// @param cotangents of the outputs, same types; empty handles are zero
/// @param wrt inputs or intermediate values to differentiate with respect to
/// @param gradient_dtype for each wrt, the type its cotangent is computed in (empty span: the
/// value's own)
/// @return one cotangent per wrt; an empty handle where the outputs do not depend on it.
/// Contributions to a value are summed in backward order (last use first).
/// @throws InvalidArgument naming an op that is on the path and has no vjp.
std::vector<Value> vjp(Tracer& tracer, std::span<const Value> outputs,
                       std::span<const Value> cotangents, std::span<const Value> wrt,
                       std::span<const DType> gradient_dtypes = {});

/// The same, with what different runs of a unit contribute to a `wrt` kept apart, last use first:
/// sums over micro-batches then do not depend on the order of units and micro-batches. `wrt` are
/// graph inputs.
std::vector<std::vector<Value>> vjp_by_use(Tracer& tracer, std::span<const Value> outputs,
                                           std::span<const Value> cotangents,
                                           std::span<const Value> wrt,
                                           std::span<const DType> gradient_dtypes = {});

}  // namespace ashlar
