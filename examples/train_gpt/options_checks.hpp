// What the values of flags must be, each on its own and beside the others.
#pragma once

#include "train_gpt/options.hpp"

namespace train_gpt {

/// @throws ashlar::InvalidArgument for the first flag whose value cannot be used.
void check(const Options& options);

}  // namespace train_gpt
