// Llama (Touvron et al., arXiv:2302.13971; grouped queries: arXiv:2307.09288) as a traced model:
// configurations in the dialect of Hugging Face's config.json. LanguageModel traces it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ashlar {

/// Beside each member: its key in config.json.
struct LlamaConfig {
  std::string name = "llama";
  std::int64_t layers = 4;        // num_hidden_layers
  std::int64_t heads = 4;         // num_attention_heads
  std::int64_t kv_heads = 2;      // num_key_value_heads: of keys and values, shared by neighbours
  std::int64_t head_size = 32;    // head_dim
  std::int64_t width = 128;       // hidden_size
  std::int64_t inner = 344;       // intermediate_size, of the gated MLP
  std::int64_t positions = 256;   // max_position_embeddings
  std::int64_t vocabulary = 256;  // vocab_size
  bool tied = false;              // tie_word_embeddings: the head uses the token embedding
  double epsilon = 1e-6;          // rms_norm_eps
  double rotary_base = 10000;     // rope_theta
  std::vector<std::int64_t> begin_tokens = {};  // bos_token_id, carried from file to file
  std::vector<std::int64_t> end_tokens = {};    // eos_token_id
};

/// The path of a config.json of model_type llama or mistral (which is a Llama for sequences within
/// its sliding window), with transformers' defaults for what it leaves out. Scaled rotary
/// embeddings, biases and activations other than silu are refused.
/// @throws InvalidArgument naming the key of the file that is missing, cannot be right or is not
/// supported.
LlamaConfig llama_config(const std::string& path);

/// The config.json that LlamaForCausalLM reads.
std::string to_config_json(const LlamaConfig& config, std::string_view torch_dtype);

}  // namespace ashlar
