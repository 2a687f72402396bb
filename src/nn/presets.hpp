// Published models by name.
#pragma once

#include <optional>
#include <string_view>

#include "ashlar/nn/gpt.hpp"
#include "ashlar/nn/llama.hpp"

namespace ashlar {

std::optional<GptConfig> gpt_preset(std::string_view name);
std::optional<LlamaConfig> llama_preset(std::string_view name);

}  // namespace ashlar
