// What ShardedOptimizer::read is asked for.
#pragma once

#include <span>
#include <string_view>

#include "ashlar/sharded_optimizer.hpp"

namespace ashlar {

/// @param gets whether this rank's memory is written @param states of the update rule
/// @throws InvalidArgument naming the parameter: memory that is missing, too short or of another
/// kind of numbers; an average that is not kept.
void require_readable(const Parameter& parameter, const TensorView& out, const ReadOptions& how,
                      bool gets, std::span<const std::string_view> states);

}  // namespace ashlar
