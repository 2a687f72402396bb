#include "ashlar/nn/gpt.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ashlar/error.hpp"
#include "ashlar/ops.hpp"

namespace ashlar {
namespace {

/// The residual stream: `sum` so far and a branch that is still to be added to it (empty at the
/// start).
struct Stream {
  Value sum, branch;
};

class Gpt {
 public:
  Gpt(Tracer& tracer, const GptConfig& config, const GptTrace& how)
      : t_(tracer), c_(config), how_(how) {
    if (how.sequence < 1 || how.sequence > config.positions) {
      throw InvalidArgument(
          fmt::format("model '{}' has {} positions; a sequence of {} does not fit (--seq)",
                      config.name, config.positions, how.sequence));
    }
  }

  /// (B, T) tokens -> (B, T, C), normalised.
  Value hidden(Value tokens) {
    Stream x = embed(tokens);
    for (std::int64_t layer = 0; layer < c_.layers; ++layer)
      x = block(x, fmt::format("h.{}", layer));
    const auto unit = t_.unit("head");
    return add_norm(x, "ln_f").second;
  }

  Value head_weight() {
    return c_.tied ? token_table() : weight("lm_head.weight", {c_.vocabulary, c_.width}, 0.02);
  }

 private:
  Stream embed(Value tokens) {
    const auto unit = t_.unit("embedding");
    const Value x =
        embedding(tokens, token_table(), weight("wpe.weight", {c_.positions, c_.width}, 0.02));
    return {dropout(x, how_.dropout), {}};
  }

  Stream block(Stream x, const std::string& name) {
    const auto unit = t_.unit(name);
    const double residual = 0.02 / std::sqrt(2.0 * static_cast<double>(c_.layers));
    const auto [sum, normal] = add_norm(x, name + ".ln_1");
    const Value qkv =
        linear(normal, weight(name + ".attn.c_attn.weight", {c_.width, 3 * c_.width}, 0.02),
               vector(name + ".attn.c_attn.bias", 3 * c_.width));
    const Value mixed = linear(causal_attention(qkv, static_cast<int>(c_.heads)),
                               weight(name + ".attn.c_proj.weight", {c_.width, c_.width}, residual),
                               vector(name + ".attn.c_proj.bias", c_.width));
    const auto [middle, again] = add_norm({sum, dropout(mixed, how_.dropout)}, name + ".ln_2");
    const Value up =
        linear_gelu(again, weight(name + ".mlp.c_fc.weight", {c_.width, c_.inner}, 0.02),
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
    return weight("wte.weight", {c_.vocabulary, c_.width}, 0.02);
  }

  Value weight(const std::string& name, const Shape& shape, double deviation) {
    return declare(name, shape, {Initializer::Kind::normal, deviation});
  }
  Value vector(const std::string& name, std::int64_t size, double value = 0) {
    return declare(name, {size}, {Initializer::Kind::constant, value});
  }
  Value declare(const std::string& name, const Shape& shape, Initializer initializer) {
    const bool frozen =
        std::any_of(how_.frozen.begin(), how_.frozen.end(),
                    [&](const std::string& pattern) { return matches_pattern(name, pattern); });
    return t_.parameter({name, shape, how_.dtype, 0, !frozen, shape.rank() >= 2, initializer});
  }

  Tracer& t_;
  const GptConfig& c_;
  const GptTrace& how_;
};

}  // namespace

Value gpt_loss(Tracer& tracer, const GptConfig& config, const GptTrace& how) {
  Gpt gpt(tracer, config, how);
  const Value tokens = tracer.input("tokens", DType::i32, {how.batch, how.sequence});
  const Value targets = tracer.input("targets", DType::i32, {how.batch, how.sequence});
  const Value x = gpt.hidden(tokens);
  const auto unit = tracer.unit("head");
  return linear_cross_entropy(x, gpt.head_weight(), targets);
}

void gpt_logits(Tracer& tracer, const GptConfig& config, const GptTrace& how) {
  Gpt gpt(tracer, config, how);
  const Value x = gpt.hidden(tracer.input("tokens", DType::i32, {how.batch, how.sequence}));
  const auto unit = tracer.unit("head");
  tracer.output("logits", matmul(x, gpt.head_weight(), {.transpose_b = true, .dtype = DType::f32}));
}

void gpt_next_token(Tracer& tracer, const GptConfig& config, const GptTrace& how) {
  Gpt gpt(tracer, config, how);
  const Value x = gpt.hidden(tracer.input("tokens", DType::i32, {how.batch, how.sequence}));
  const auto unit = tracer.unit("head");
  const Value last =
      reshape(slice(x, 1, how.sequence - 1, how.sequence), {how.batch, config.width});
  tracer.output("logits",
                matmul(last, gpt.head_weight(), {.transpose_b = true, .dtype = DType::f32}));
}

bool matches_pattern(std::string_view name, std::string_view pattern) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name.find(pattern) != std::string_view::npos;
  // Whole-name match, one run of characters per star, by backtracking to the last star.
  std::size_t n = 0, p = 0, last_star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      last_star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (last_star != std::string_view::npos) {
      p = last_star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace ashlar
