// What the values of flags must be, each on its own and beside the others.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train_gpt/options.hpp"

namespace train_gpt {

/// @throws ashlar::InvalidArgument "--flag value: remedy" unless it holds.
void require(bool holds, std::string_view flag, std::string_view value, std::string_view remedy);
/// @throws ashlar::InvalidArgument naming the nearest of the choices, or all.
void require_choice(std::string_view flag, const std::string& value,
                    const std::vector<std::string>& choices);
/// @throws ashlar::InvalidArgument for the first flag whose value cannot be used.
void check(const Options& options);

}  // namespace train_gpt
