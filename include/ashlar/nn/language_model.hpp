// A causal language model of either family, GPT-2 or Llama, by its configuration.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ashlar/graph.hpp"
#include "ashlar/nn/gpt.hpp"
#include "ashlar/nn/llama.hpp"
#include "ashlar/nn/model_trace.hpp"

namespace ashlar {

/// Parameters carry Hugging Face's names in Hugging Face's layout: of GPT-2
/// "h.0.attn.c_attn.weight" (in, out), of Llama "model.layers.0.self_attn.q_proj.weight" (out, in).
/// Units: "embedding", one per block, "head".
class LanguageModel {
 public:
  LanguageModel(GptConfig config) : config_(std::move(config)) {}    // NOLINT: a model is its
  LanguageModel(LlamaConfig config) : config_(std::move(config)) {}  // configuration

  const std::string& name() const;
  std::int64_t vocabulary() const;
  bool tied() const;
  std::int64_t layers() const;
  std::int64_t heads() const;
  std::int64_t width() const;
  std::int64_t positions() const;
  /// What the linear layers of one block make per token, together.
  std::int64_t block_channels() const;
  /// The same model for longer or shorter sequences. GPT's has a learned vector per position.
  LanguageModel with_positions(std::int64_t positions) const;

  /// Inputs "tokens" and "targets", i32 (B, T); @return the mean cross-entropy, f32 scalar.
  Value loss(Tracer& tracer, const ModelTrace& how) const;
  /// Input "tokens"; output "logits" f32 (B, T, V).
  void logits(Tracer& tracer, const ModelTrace& how) const;
  /// Input "tokens"; output "logits" f32 (B, V) of the last position.
  void next_token(Tracer& tracer, const ModelTrace& how) const;

  /// The config.json that transformers reads.
  std::string config_json(std::string_view torch_dtype) const;

 private:
  std::variant<GptConfig, LlamaConfig> config_;
};

/// The names of published models: "tiny", "gpt2-xl", "gpt3-175b", "megatron-1t", "mpt-7b",
/// "llama2-70b", "mistral-7b", ...
std::vector<std::string> model_presets();

/// A preset, or the path of a config.json of model_type gpt2 (also when it has none), llama or
/// mistral. @throws InvalidArgument naming the nearest presets, else as gpt_config and
/// llama_config.
LanguageModel language_model(const std::string& name_or_path);

}  // namespace ashlar
