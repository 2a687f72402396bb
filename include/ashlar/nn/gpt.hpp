// GPT-2 (Radford et al. 2019) as a traced model; configurations in the dialect of Hugging Face's
// config.json.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ashlar/graph.hpp"
#include "ashlar/nn/model_trace.hpp"

namespace ashlar {

struct GptConfig {
  std::string name = "tiny";
  std::int64_t layers = 4;
  std::int64_t heads = 4;
  std::int64_t width = 128;
  std::int64_t positions = 256;
  std::int64_t vocabulary = 256;
  std::int64_t inner = 512;  // width of the MLP
  bool tied = true;          // the head uses the token embedding
  double epsilon = 1e-5;
};

/// A preset of this family (model_presets()) or the path of a config.json of model_type gpt2.
/// @throws InvalidArgument naming the nearest presets, or the key of the file that is missing or
/// cannot be right.
GptConfig gpt_config(const std::string& name_or_path);

/// The config.json that GPT2LMHeadModel reads.
std::string to_config_json(const GptConfig& config, std::string_view torch_dtype);

/// Inputs "tokens" and "targets", i32 (B, T); @return the mean cross-entropy, f32 scalar.
/// Parameters carry Hugging Face's names ("h.0.attn.c_attn.weight"), weights are (in, out). Units:
/// "embedding", "h.0", ..., "head".
Value gpt_loss(Tracer& tracer, const GptConfig& config, const ModelTrace& how);

/// Input "tokens"; output "logits" f32 (B, T, V).
void gpt_logits(Tracer& tracer, const GptConfig& config, const ModelTrace& how);

/// Input "tokens"; output "logits" (B, V) of the last position.
void gpt_next_token(Tracer& tracer, const GptConfig& config, const ModelTrace& how);

}  // namespace ashlar
