#include <fmt/format.h>

#include <algorithm>

#include "ashlar/nn/llama.hpp"
#include "nn/config_file.hpp"

namespace ashlar {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kMaxChannels = std::int64_t{1} << 31;

double number(std::int64_t extent) { return static_cast<double>(extent); }

/// Other versions of Llama compute something else from the same weights.
void require_supported(const ConfigFile& file) {
  const bool mistral = file.is("model_type", "mistral");
  file.require("model_type", {"llama", "mistral"});
  file.require_holds("architectures", mistral ? "MistralForCausalLM" : "LlamaForCausalLM");
  file.require("hidden_act", {"silu", "swish"});
  file.require_flag("attention_bias", false);
  file.require_flag("mlp_bias", false);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {  // of transformers 4 and 5
    const ConfigFile rotary = file.below(key);
    rotary.require("rope_type", {"default"});
    rotary.require("type", {"default"});
    if (rotary.has("factor") || rotary.has("partial_rotary_factor"))
      file.refuse(fmt::format("'{}' scales rotary embeddings, which is not supported", key));
  }
}

void require_whole_heads(const LlamaConfig& c, const ConfigFile& file) {
  if (c.heads % c.kv_heads != 0)
    file.refuse(
        fmt::format("'num_attention_heads' {} is not a multiple of 'num_key_value_heads' {}",
                    c.heads, c.kv_heads));
  if (!file.has("head_dim") && c.width % c.heads != 0)
    file.refuse(fmt::format("'hidden_size' {} is not a multiple of 'num_attention_heads' {}",
                            c.width, c.heads));
  if (c.head_size % 2 != 0)
    file.refuse(
        fmt::format("'head_dim' {} is odd; rotary embeddings turn pairs of channels", c.head_size));
  if (c.heads > kMaxChannels / c.head_size)
    file.refuse(fmt::format("'num_attention_heads' {} of 'head_dim' {} make more than {} channels",
                            c.heads, c.head_size, kMaxChannels));
}

void require_plausible(const LlamaConfig& c, const ConfigFile& file) {
  const double attention = 2 * number(c.width) * number(c.heads + c.kv_heads) * number(c.head_size);
  const double block = attention + 3 * number(c.width) * number(c.inner);
  const double tables = 2 * number(c.vocabulary) * number(c.width);
  file.require_plausible("num_hidden_layers", c.layers, number(c.layers) * block + tables,
                         {{"hidden_size", c.width},
                          {"intermediate_size", c.inner},
                          {"num_attention_heads", c.heads},
                          {"head_dim", c.head_size},
                          {"vocab_size", c.vocabulary}});
}

Json tokens(const std::vector<std::int64_t>& all) {
  if (all.empty()) return nullptr;
  return all.size() == 1 ? Json(all.front()) : Json(all);
}

}  // namespace

LlamaConfig llama_config(const std::string& path) {
  const ConfigFile file(path, "Llama");
  require_supported(file);
  LlamaConfig config;
  config.name = path;
  config.layers = file.size("num_hidden_layers");
  config.heads = file.size("num_attention_heads");
  config.kv_heads = file.size("num_key_value_heads", config.heads);
  config.width = file.size("hidden_size");
  config.inner = file.size("intermediate_size");
  config.head_size = file.size("head_dim", std::max<std::int64_t>(1, config.width / config.heads));
  config.positions = file.size("max_position_embeddings");
  if (file.is("model_type", "mistral"))  // within the window, attention is plain
    config.positions = std::min(config.positions, file.size("sliding_window", config.positions));
  config.vocabulary = file.size("vocab_size");
  config.tied = file.flag("tie_word_embeddings", false);
  config.epsilon = file.positive("rms_norm_eps", 1e-6);
  config.rotary_base =
      file.below("rope_parameters").positive("rope_theta", file.positive("rope_theta", 10000));
  config.begin_tokens = file.tokens("bos_token_id", config.vocabulary);
  config.end_tokens = file.tokens("eos_token_id", config.vocabulary);
  require_whole_heads(config, file);
  require_plausible(config, file);
  return config;
}

std::string to_config_json(const LlamaConfig& config, std::string_view torch_dtype) {
  const Json json{{"architectures", {"LlamaForCausalLM"}},
                  {"model_type", "llama"},
                  {"hidden_act", "silu"},
                  {"num_hidden_layers", config.layers},
                  {"num_attention_heads", config.heads},
                  {"num_key_value_heads", config.kv_heads},
                  {"head_dim", config.head_size},
                  {"hidden_size", config.width},
                  {"intermediate_size", config.inner},
                  {"max_position_embeddings", config.positions},
                  {"vocab_size", config.vocabulary},
                  {"rms_norm_eps", config.epsilon},
                  {"rope_theta", config.rotary_base},
                  {"rope_scaling", nullptr},
                  {"attention_bias", false},
                  {"mlp_bias", false},
                  {"attention_dropout", 0.0},
                  {"tie_word_embeddings", config.tied},
                  {"bos_token_id", tokens(config.begin_tokens)},
                  {"eos_token_id", tokens(config.end_tokens)},
                  {"torch_dtype", torch_dtype}};
  return json.dump(2) + "\n";
}

}  // namespace ashlar
