// The plainest reader of a Graph: every value in an allocation of its own, freed by counting
// references at run time. It knows neither liveness nor the plan, so it serves as their oracle.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "ashlar/buffer.hpp"
#include "ashlar/op.hpp"

namespace ashlar {

/// Values that own their memory, by output name.
using Tensors = std::map<std::string, std::pair<Buffer, TensorView>>;

/// Runs all sections of `graph` once, on the calling thread.
/// @param inputs one contiguous view per graph input, by name (missing or mistyped:
/// InvalidArgument). States are read and written in place.
/// @param resource every intermediate is allocated from it, with its category
/// @return copies of the graph's outputs
Tensors evaluate(const Graph& graph, const std::map<std::string, TensorView>& inputs,
                 const RunContext& context, MemoryResource& resource = host_memory(),
                 const Backend& backend = {});

}  // namespace ashlar
