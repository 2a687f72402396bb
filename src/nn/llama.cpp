#include "ashlar/nn/llama.hpp"

#include <fmt/format.h>

#include "ashlar/ops.hpp"
#include "nn/decoder.hpp"

namespace ashlar {
namespace {

class Llama : public Decoder {
 public:
  Llama(Tracer& tracer, const LlamaConfig& config, const ModelTrace& how)
      : Decoder(tracer, how, config.name, config.positions), c_(config) {}

 private:
  Value hidden(Value tokens) override {
    Value x = embed(tokens);
    for (std::int64_t layer = 0; layer < c_.layers; ++layer)
      x = block(x, fmt::format("model.layers.{}", layer));
    const auto unit = t_.unit("head");
    return norm(x, "model.norm");
  }

  Value head_weight() override {
    return c_.tied ? token_table() : weight("lm_head.weight", {c_.vocabulary, c_.width});
  }

  Value embed(Value tokens) {
    const auto unit = t_.unit("embedding");
    return dropout(embedding(tokens, token_table(), {}), how_.dropout);
  }

  Value block(Value x, const std::string& name) {
    const auto unit = t_.unit(name);
    const double residual = residual_deviation(c_.layers);
    const Value mixed = project(attention(norm(x, name + ".input_layernorm"), name + ".self_attn"),
                                name + ".self_attn.o_proj", c_.width, residual);
    const Value middle = add(x, dropout(mixed, how_.dropout));
    const Value normal = norm(middle, name + ".post_attention_layernorm");
    const Value gate = project(normal, name + ".mlp.gate_proj", c_.inner);
    const Value up = project(normal, name + ".mlp.up_proj", c_.inner);
    const Value down = project(swiglu(gate, up), name + ".mlp.down_proj", c_.width, residual);
    return add(middle, dropout(down, how_.dropout));
  }

  /// (B, T, C) -> (B, T, heads x head size)
  Value attention(Value x, const std::string& name) {
    const int heads = static_cast<int>(c_.heads), kv_heads = static_cast<int>(c_.kv_heads);
    const RotaryOptions turn{.base = c_.rotary_base};
    const Value q = rotary(project(x, name + ".q_proj", heads * c_.head_size), heads, turn);
    const Value k = rotary(project(x, name + ".k_proj", kv_heads * c_.head_size), kv_heads, turn);
    const Value v = project(x, name + ".v_proj", kv_heads * c_.head_size);
    return grouped_query_attention(q, k, v, heads, kv_heads);
  }

  /// x (..., in) W^T with W (out, in).
  Value project(Value x, const std::string& name, std::int64_t out, double deviation = 0.02) {
    return matmul(x, weight(name + ".weight", {out, x.shape()[-1]}, deviation),
                  {.transpose_b = true});
  }

  Value norm(Value x, const std::string& name) {
    return rms_norm(x, vector(name + ".weight", c_.width, 1), c_.epsilon);
  }

  /// Declared in the embedding's unit wherever it is used.
  Value token_table() {
    const auto unit = t_.unit("embedding");
    return weight("model.embed_tokens.weight", {c_.vocabulary, c_.width});
  }

  const LlamaConfig& c_;
};

}  // namespace

std::unique_ptr<Decoder> decoder(Tracer& tracer, const LlamaConfig& config, const ModelTrace& how) {
  return std::make_unique<Llama>(tracer, config, how);
}

}  // namespace ashlar
