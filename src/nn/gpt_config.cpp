#include <fmt/format.h>

#include "ashlar/error.hpp"
#include "ashlar/nn/language_model.hpp"
#include "base/nearest.hpp"
#include "nn/config_file.hpp"
#include "nn/presets.hpp"

namespace ashlar {
namespace {

using Json = nlohmann::json;

double number(std::int64_t extent) { return static_cast<double>(extent); }

void require_plausible(const GptConfig& c, const ConfigFile& file) {
  const double block =
      4 * number(c.width) * number(c.width) + 2 * number(c.width) * number(c.inner);
  const double tables = (number(c.positions) + 2 * number(c.vocabulary)) * number(c.width);
  file.require_plausible("n_layer", c.layers, number(c.layers) * block + tables,
                         {{"n_embd", c.width},
                          {"n_inner", c.inner},
                          {"n_positions", c.positions},
                          {"vocab_size", c.vocabulary}});
}

GptConfig read(const std::string& path) {
  const ConfigFile file(path, "GPT-2");
  file.require("model_type", {"gpt2"});
  file.require("activation_function", {"gelu_new", "gelu_pytorch_tanh"});
  file.require_flag("scale_attn_weights", true);
  file.require_flag("scale_attn_by_inverse_layer_idx", false);
  file.require_flag("add_cross_attention", false);
  GptConfig config;
  config.name = path;
  config.layers = file.size("n_layer");
  config.heads = file.size("n_head");
  config.width = file.size("n_embd");
  config.positions = file.size(file.has("n_positions") ? "n_positions" : "n_ctx");
  config.vocabulary = file.size("vocab_size");
  config.inner = file.size("n_inner", 4 * config.width);
  config.tied = file.flag("tie_word_embeddings", true);
  config.epsilon = file.positive("layer_norm_epsilon", config.epsilon);
  if (config.width % config.heads != 0)
    file.refuse(
        fmt::format("'n_embd' {} is not a multiple of 'n_head' {}", config.width, config.heads));
  require_plausible(config, file);
  return config;
}

}  // namespace

GptConfig gpt_config(const std::string& name) {
  if (const auto preset = gpt_preset(name)) return *preset;
  if (is_config_path(name)) return read(name);
  throw InvalidArgument(fmt::format("model '{}' is unknown; {} (or the path of a config.json)",
                                    name, suggestion(name, model_presets())));
}

std::string to_config_json(const GptConfig& config, std::string_view torch_dtype) {
  const Json json{{"architectures", {"GPT2LMHeadModel"}},
                  {"model_type", "gpt2"},
                  {"activation_function", "gelu_new"},
                  {"n_layer", config.layers},
                  {"n_head", config.heads},
                  {"n_embd", config.width},
                  {"n_positions", config.positions},
                  {"n_ctx", config.positions},
                  {"n_inner", config.inner},
                  {"vocab_size", config.vocabulary},
                  {"layer_norm_epsilon", config.epsilon},
                  {"tie_word_embeddings", config.tied},
                  {"attn_pdrop", 0.0},
                  {"embd_pdrop", 0.0},
                  {"resid_pdrop", 0.0},
                  {"bos_token_id", config.vocabulary - 1},
                  {"eos_token_id", config.vocabulary - 1},
                  {"torch_dtype", torch_dtype}};
  return json.dump(2) + "\n";
}

}  // namespace ashlar
