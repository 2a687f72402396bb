#include "ashlar/nn/gpt.hpp"

#include <fmt/format.h>

#include "ashlar/ops.hpp"
#include "nn/decoder.hpp"

namespace ashlar {
namespace {

/// The residual stream: `sum` so far and a branch that is still to be added to it (empty at the
/// start).
struct Stream {
  Value sum, branch;
};

class Gpt : public Decoder {
 public:
  Gpt(Tracer& tracer, const GptConfig& config, const ModelTrace& how)
      : Decoder(tracer, how, config.name, config.positions), c_(config) {}

 private:
  Value hidden(Value tokens) override {
    Stream x = embed(tokens);
    for (std::int64_t layer = 0; layer < c_.layers; ++layer)
      x = block(x, fmt::format("h.{}", layer));
    const auto unit = t_.unit("head");
    return add_norm(x, "ln_f").second;
  }

  Value head_weight() override {
    return c_.tied ? token_table() : weight("lm_head.weight", {c_.vocabulary, c_.width});
  }

  Stream embed(Value tokens) {
    const auto unit = t_.unit("embedding");
    const Value x =
        embedding(tokens, token_table(), weight("wpe.weight", {c_.positions, c_.width}));
    return {dropout(x, how_.dropout), {}};
  }

  Stream block(Stream x, const std::string& name) {
    const auto unit = t_.unit(name);
    const double residual = residual_deviation(c_.layers);
    const auto [sum, normal] = add_norm(x, name + ".ln_1");
    const Value qkv = linear(normal, weight(name + ".attn.c_attn.weight", {c_.width, 3 * c_.width}),
                             vector(name + ".attn.c_attn.bias", 3 * c_.width));
    const Value mixed = linear(causal_attention(qkv, static_cast<int>(c_.heads)),
                               weight(name + ".attn.c_proj.weight", {c_.width, c_.width}, residual),
                               vector(name + ".attn.c_proj.bias", c_.width));
    const auto [middle, again] = add_norm({sum, dropout(mixed, how_.dropout)}, name + ".ln_2");
    const Value up = linear_gelu(again, weight(name + ".mlp.c_fc.weight", {c_.width, c_.inner}),
                                 vector(name + ".mlp.c_fc.bias", c_.inner));
    const Value down =
        linear(up, weight(name + ".mlp.c_proj.weight", {c_.inner, c_.width}, residual),
               vector(name + ".mlp.c_proj.bias", c_.width));
    return {middle, dropout(down, how_.dropout)};
  }

  /// Adds the open branch and normalises: (sum, normalised sum).
  std::pair<Value, Value> add_norm(Stream x, const std::string& name) {
    const Value scale = vector(name + ".weight", c_.width, 1),
                shift = vector(name + ".bias", c_.width);
    if (!x.branch) return {x.sum, layer_norm(x.sum, scale, shift, c_.epsilon)};
    return add_layer_norm(x.branch, x.sum, scale, shift, c_.epsilon);
  }

  /// Declared in the embedding's unit wherever it is used.
  Value token_table() {
    const auto unit = t_.unit("embedding");
    return weight("wte.weight", {c_.vocabulary, c_.width});
  }

  const GptConfig& c_;
};

}  // namespace

std::unique_ptr<Decoder> decoder(Tracer& tracer, const GptConfig& config, const ModelTrace& how) {
  return std::make_unique<Gpt>(tracer, config, how);
}

Value gpt_loss(Tracer& tracer, const GptConfig& config, const ModelTrace& how) {
  return Gpt(tracer, config, how).loss();
}
void gpt_logits(Tracer& tracer, const GptConfig& config, const ModelTrace& how) {
  Gpt(tracer, config, how).logits();
}
void gpt_next_token(Tracer& tracer, const GptConfig& config, const ModelTrace& how) {
  Gpt(tracer, config, how).next_token();
}

}  // namespace ashlar
