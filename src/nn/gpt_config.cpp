#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ashlar/error.hpp"
#include "ashlar/nn/gpt.hpp"

namespace ashlar {
namespace {

using Json = nlohmann::json;

struct Preset {
  std::string_view name;
  std::int64_t layers, heads, width, positions, vocabulary;
};

// The gpt2 sizes: Radford et al. 2019, table 2, and the published config.json files.
constexpr std::array<Preset, 6> kPresets{{{"tiny", 4, 4, 128, 256, 256},
                                          {"small", 6, 6, 384, 256, 256},
                                          {"gpt2", 12, 12, 768, 1024, 50257},
                                          {"gpt2-medium", 24, 16, 1024, 1024, 50257},
                                          {"gpt2-large", 36, 20, 1280, 1024, 50257},
                                          {"gpt2-xl", 48, 25, 1600, 1024, 50257}}};

constexpr std::array<std::string_view, 6> kNames{"tiny",        "small",      "gpt2",
                                                 "gpt2-medium", "gpt2-large", "gpt2-xl"};

constexpr std::int64_t kMaxLayers = 10'000;
constexpr double kMaxParameters = 1e14;

std::int64_t size_at(const Json& json, const char* key, const std::string& path) {
  const auto found = json.find(key);
  if (found == json.end())
    throw InvalidArgument(
        fmt::format("{}: '{}' is missing; a GPT-2 config.json has it", path, key));
  if (!found->is_number_integer() || found->get<std::int64_t>() < 1 ||
      found->get<std::int64_t>() > (1LL << 31)) {
    throw InvalidArgument(fmt::format("{}: '{}' is {}; it must be a whole number from 1 to {}",
                                      path, key, found->dump(), 1LL << 31));
  }
  return found->get<std::int64_t>();
}

void require(const Json& json, const char* key, std::initializer_list<const char*> accepted,
             const std::string& path) {
  const auto found = json.find(key);
  if (found == json.end()) return;
  for (const char* value : accepted) {
    if (*found == value) return;
  }
  throw InvalidArgument(fmt::format("{}: '{}' is {}; supported: {}", path, key, found->dump(),
                                    fmt::join(accepted, ", ")));
}

void require_flag(const Json& json, const char* key, bool supported, const std::string& path) {
  const auto found = json.find(key);
  if (found == json.end() || *found == supported) return;
  throw InvalidArgument(
      fmt::format("{}: '{}' is {}; only {} is supported", path, key, found->dump(), supported));
}

bool flag_at(const Json& json, const char* key, bool otherwise, const std::string& path) {
  const auto found = json.find(key);
  if (found == json.end()) return otherwise;
  if (!found->is_boolean())
    throw InvalidArgument(
        fmt::format("{}: '{}' is {}; it must be true or false", path, key, found->dump()));
  return found->get<bool>();
}

/// Sizes that no machine holds are a slip of the pen; a trace of them would take for ever.
void require_plausible(const GptConfig& c, const std::string& path) {
  if (c.layers > kMaxLayers)
    throw InvalidArgument(
        fmt::format("{}: 'n_layer' is {}; at most {} are supported", path, c.layers, kMaxLayers));
  const auto number = [](std::int64_t extent) { return static_cast<double>(extent); };
  const double block =
      4 * number(c.width) * number(c.width) + 2 * number(c.width) * number(c.inner);
  const double tables = (number(c.positions) + 2 * number(c.vocabulary)) * number(c.width);
  if (number(c.layers) * block + tables > kMaxParameters)
    throw InvalidArgument(fmt::format(
        "{}: 'n_layer' {}, 'n_embd' {}, 'n_inner' {}, 'n_positions' {} and 'vocab_size' {} make "
        "more than {:.0e} parameters; correct the one that is wrong",
        path, c.layers, c.width, c.inner, c.positions, c.vocabulary, kMaxParameters));
}

GptConfig read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw InvalidArgument(fmt::format("{}: cannot be read", path));
  const Json json = Json::parse(file, nullptr, false);
  if (!json.is_object()) throw InvalidArgument(fmt::format("{}: not a JSON object", path));
  require(json, "model_type", {"gpt2"}, path);
  require(json, "activation_function", {"gelu_new", "gelu_pytorch_tanh"}, path);
  require_flag(json, "scale_attn_weights", true, path);
  require_flag(json, "scale_attn_by_inverse_layer_idx", false, path);
  require_flag(json, "add_cross_attention", false, path);
  GptConfig config;
  config.name = path;
  config.layers = size_at(json, "n_layer", path);
  config.heads = size_at(json, "n_head", path);
  config.width = size_at(json, "n_embd", path);
  config.positions = size_at(json, json.contains("n_positions") ? "n_positions" : "n_ctx", path);
  config.vocabulary = size_at(json, "vocab_size", path);
  config.inner = json.contains("n_inner") && !json["n_inner"].is_null()
                     ? size_at(json, "n_inner", path)
                     : 4 * config.width;
  config.tied = flag_at(json, "tie_word_embeddings", true, path);
  if (const auto epsilon = json.find("layer_norm_epsilon"); epsilon != json.end()) {
    if (!epsilon->is_number() || epsilon->get<double>() <= 0) {
      throw InvalidArgument(
          fmt::format("{}: 'layer_norm_epsilon' is {}; it must be above 0", path, epsilon->dump()));
    }
    config.epsilon = epsilon->get<double>();
  }
  if (config.width % config.heads != 0) {
    throw InvalidArgument(fmt::format("{}: 'n_embd' {} is not a multiple of 'n_head' {}", path,
                                      config.width, config.heads));
  }
  require_plausible(config, path);
  return config;
}

}  // namespace

std::span<const std::string_view> gpt_presets() { return kNames; }

GptConfig gpt_config(const std::string& name) {
  for (const Preset& preset : kPresets) {
    if (preset.name == name) {
      return {name,
              preset.layers,
              preset.heads,
              preset.width,
              preset.positions,
              preset.vocabulary,
              4 * preset.width,
              true,
              1e-5};
    }
  }
  if (name.ends_with(".json") || std::filesystem::exists(name)) return read(name);
  throw InvalidArgument(fmt::format("unknown model '{}'; known: {}, or the path of a config.json",
                                    name, fmt::join(kNames, ", ")));
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
