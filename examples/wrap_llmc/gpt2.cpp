#include "gpt2.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

namespace {

constexpr int kFirstOfLayer = 2, kEndOfLayer = 14;
constexpr const char* kNames[kTensors] = {"wte",      "wpe",      "ln1w", "ln1b", "qkvw", "qkvb",
                                          "attprojw", "attprojb", "ln2w", "ln2b", "fcw",  "fcb",
                                          "fcprojw",  "fcprojb",  "lnfw", "lnfb"};

unsigned draw(unsigned& state) { return (state = state * 1664525U + 1013904223U) >> 8; }

bool is_layered(int tensor) { return tensor >= kFirstOfLayer && tensor < kEndOfLayer; }

Index offset_of(const GPT2& model, int tensor, int layer) {
  Index at = is_layered(tensor) ? layer * model.sizes[tensor] : 0;
  for (int t = 0; t < tensor; ++t) at += model.sizes[t] * (is_layered(t) ? model.config.layers : 1);
  return at;
}

/// Layer l's part of each tensor that has layers.
Tensors layer_of(const GPT2& model, float* memory, int l) {
  const auto at = [&](int tensor) { return memory + offset_of(model, tensor, l); };
  return {at(0), at(1), at(2),  at(3),  at(4),  at(5),  at(6),  at(7),
          at(8), at(9), at(10), at(11), at(12), at(13), at(14), at(15)};
}

Activations layer_of(const GPT2& model, int l) {
  const Config& c = model.config;
  const Index rows = Index{c.batch} * c.seq, n = l * rows * c.channels;
  const Activations& a = model.acts;
  return {a.residual + n,
          a.ln1 + n,
          a.qkv + 3 * n,
          a.weights + Index{l} * c.batch * c.heads * c.seq * c.seq,
          a.atty + n,
          a.middle + n,
          a.ln2 + n,
          a.fc + 4 * n,
          a.gelu + 4 * n,
          {a.norm1.mean + l * rows, a.norm1.rstd + l * rows},
          {a.norm2.mean + l * rows, a.norm2.rstd + l * rows},
          a.lnf,
          a.probabilities,
          a.normf};
}

void create_activations(GPT2& model) {
  const Config& c = model.config;
  const Index rows = Index{c.batch} * c.seq, n = rows * c.channels, layers = c.layers;
  Activations& a = model.acts;
  const std::pair<float**, Index> parts[] = {
      {&a.residual, (layers + 1) * n},
      {&a.ln1, layers * n},
      {&a.qkv, layers * 3 * n},
      {&a.weights, layers * c.batch * c.heads * c.seq * c.seq},
      {&a.atty, layers * n},
      {&a.middle, layers * n},
      {&a.ln2, layers * n},
      {&a.fc, layers * 4 * n},
      {&a.gelu, layers * 4 * n},
      {&a.norm1.mean, layers * rows},
      {&a.norm1.rstd, layers * rows},
      {&a.norm2.mean, layers * rows},
      {&a.norm2.rstd, layers * rows},
      {&a.lnf, n},
      {&a.probabilities, rows * c.vocabulary},
      {&a.normf.mean, rows},
      {&a.normf.rstd, rows}};
  Index total = 0;
  for (const auto& [pointer, count] : parts) total += count;
  model.acts_memory = std::make_unique<float[]>(static_cast<std::size_t>(total));
  float* at = model.acts_memory.get();
  for (const auto& [pointer, count] : parts) {
    *pointer = at;
    at += count;
  }
}

/// Weights are small, those that add to the residual smaller; gains are 1 and biases 0.
void initialize(GPT2& model) {
  unsigned state = 1;
  for (int t = 0; t < kTensors; ++t) {
    const std::string name = kNames[t];
    const bool gain = name.starts_with("ln") && name.ends_with('w');
    float scale = name.starts_with("w") || (!gain && name.ends_with('w')) ? 0.03F : 0.0F;
    if (name.ends_with("projw")) scale /= std::sqrt(2 * static_cast<float>(model.config.layers));
    float* values = model.params_memory.get() + offset_of(model, t, 0);
    const Index end = offset_of(model, t + 1, 0) - offset_of(model, t, 0);
    for (Index i = 0; i < end; ++i)
      values[i] = gain ? 1 : scale * (static_cast<float>(draw(state)) / (1 << 23) - 1);
  }
}

}  // namespace

Config read_arguments(int argc, char** argv) {
  Config c;
  const std::pair<std::string, int*> options[] = {
      {"--layers", &c.layers},     {"--heads", &c.heads},
      {"--channels", &c.channels}, {"--vocabulary", &c.vocabulary},
      {"--seq", &c.seq},           {"--batch", &c.batch},
      {"--steps", &c.steps}};
  bool good = argc % 2 == 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const auto* found = std::ranges::find(options, argv[i], &std::pair<std::string, int*>::first);
    good = good && found != std::end(options) && (*found->second = std::atoi(argv[i + 1])) > 0;
    if (!good) break;
  }
  good = good && c.channels % (4 * c.heads) == 0 && c.vocabulary % 4 == 0 && c.seq % 4 == 0;
  if (good) return c;
  std::fprintf(stderr, "usage: %s", argv[0]);
  for (const auto& [name, value] : options) std::fprintf(stderr, " [%s N]", name.c_str());
  std::fprintf(stderr, "; channels are a multiple of 4 x heads, vocabulary and seq of 4\n");
  std::exit(2);
}

GPT2 gpt2_create(const Config& config) {
  const Index c = config.channels;
  GPT2 model{.config = config,
             .sizes = {config.vocabulary * c, config.seq * c, c, c, 3 * c * c, 3 * c, c * c, c, c,
                       c, 4 * c * c, 4 * c, 4 * c * c, c, c, c},
             .num_parameters = 0,
             .params_memory = {},
             .grads_memory = {},
             .acts_memory = {},
             .params = {},
             .grads = {},
             .acts = {},
             .inputs = nullptr,
             .targets = nullptr};
  model.num_parameters = offset_of(model, kTensors, 0);
  const auto count = static_cast<std::size_t>(model.num_parameters);
  model.params_memory = std::make_unique<float[]>(count);
  model.grads_memory = std::make_unique<float[]>(count);
  model.params = layer_of(model, model.params_memory.get(), 0);
  model.grads = layer_of(model, model.grads_memory.get(), 0);
  create_activations(model);
  initialize(model);
  return model;
}

std::vector<Part> gpt2_parts(const GPT2& model, int layer) {
  const int layers = model.config.layers;
  const bool inside = layer >= 0 && layer < layers;
  const int first = inside ? kFirstOfLayer : layer < 0 ? 0 : kEndOfLayer;
  const int end = inside ? kEndOfLayer : layer < 0 ? kFirstOfLayer : kTensors;
  const std::string prefix = inside ? "h." + std::to_string(layer) + "." : "";
  std::vector<Part> parts;
  for (int t = first; t < end; ++t)
    parts.push_back({prefix + kNames[t], offset_of(model, t, layer), model.sizes[t]});
  return parts;
}

float gpt2_forward(GPT2& model, const int* inputs, const int* targets) {
  const Config& c = model.config;
  const Index rows = Index{c.batch} * c.seq, C = c.channels, n = rows * C;
  model.inputs = inputs;
  model.targets = targets;
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < C; ++i)
      model.acts.residual[r * C + i] =
          model.params.wte[inputs[r] * C + i] + model.params.wpe[r % c.seq * C + i];
  for (int l = 0; l < c.layers; ++l) {
    const Tensors w = layer_of(model, model.params_memory.get(), l);
    const Activations a = layer_of(model, l);
    float* next = a.residual + n;
    layernorm_forward(a.ln1, a.norm1, a.residual, w.ln1w, w.ln1b, rows, C);
    matmul_forward(a.qkv, a.ln1, w.qkvw, w.qkvb, rows, C, 3 * C);
    attention_forward(a.atty, a.weights, a.qkv, c.batch, c.seq, c.heads, c.channels / c.heads);
    matmul_forward(a.middle, a.atty, w.attprojw, w.attprojb, rows, C, C);
    add(a.middle, a.residual, n);
    layernorm_forward(a.ln2, a.norm2, a.middle, w.ln2w, w.ln2b, rows, C);
    matmul_forward(a.fc, a.ln2, w.fcw, w.fcb, rows, C, 4 * C);
    gelu_forward(a.gelu, a.fc, 4 * n);
    matmul_forward(next, a.gelu, w.fcprojw, w.fcprojb, rows, 4 * C, C);
    add(next, a.middle, n);
  }
  const Activations& a = model.acts;
  layernorm_forward(a.lnf, a.normf, a.residual + c.layers * n, model.params.lnfw, model.params.lnfb,
                    rows, C);
  matmul_forward(a.probabilities, a.lnf, model.params.wte, nullptr, rows, C, c.vocabulary);
  return softmax_cross_entropy(a.probabilities, targets, rows, c.vocabulary) /
         static_cast<float>(rows);
}

void gpt2_zero_grad(GPT2& model) {
  std::fill_n(model.grads_memory.get(), model.num_parameters, 0.0F);
}

void gpt2_backward(GPT2& model, const std::function<void(int)>& done) {
  const Config& c = model.config;
  const Index rows = Index{c.batch} * c.seq, C = c.channels, n = rows * C;
  std::vector<float> scratch(static_cast<std::size_t>(9 * n));
  float *d = scratch.data(), *part = d + n, *dqkv = part + n, *dfc = dqkv + 3 * n;
  float* dlogits = model.acts.probabilities;
  for (Index r = 0; r < rows; ++r) dlogits[r * c.vocabulary + model.targets[r]] -= 1;
  for (Index i = 0; i < rows * c.vocabulary; ++i) dlogits[i] /= static_cast<float>(rows);
  matmul_backward(part, model.grads.wte, nullptr, dlogits, model.acts.lnf, model.params.wte, rows,
                  C, c.vocabulary);
  layernorm_backward(d, model.grads.lnfw, model.grads.lnfb, part, model.acts.normf,
                     model.acts.residual + c.layers * n, model.params.lnfw, rows, C);
  done(c.layers);
  for (int l = c.layers - 1; l >= 0; --l) {
    const Tensors w = layer_of(model, model.params_memory.get(), l);
    const Tensors g = layer_of(model, model.grads_memory.get(), l);
    const Activations a = layer_of(model, l);
    matmul_backward(dfc, g.fcprojw, g.fcprojb, d, a.gelu, w.fcprojw, rows, 4 * C, C);
    gelu_backward(dfc, a.fc, 4 * n);
    matmul_backward(part, g.fcw, g.fcb, dfc, a.ln2, w.fcw, rows, C, 4 * C);
    layernorm_backward(d, g.ln2w, g.ln2b, part, a.norm2, a.middle, w.ln2w, rows, C);
    matmul_backward(part, g.attprojw, g.attprojb, d, a.atty, w.attprojw, rows, C, C);
    attention_backward(dqkv, part, a.weights, a.qkv, c.batch, c.seq, c.heads, c.channels / c.heads);
    matmul_backward(part, g.qkvw, g.qkvb, dqkv, a.ln1, w.qkvw, rows, C, 3 * C);
    layernorm_backward(d, g.ln1w, g.ln1b, part, a.norm1, a.residual, w.ln1w, rows, C);
    done(l);
  }
  for (Index r = 0; r < rows; ++r) {
    add(model.grads.wte + model.inputs[r] * C, d + r * C, C);
    add(model.grads.wpe + r % c.seq * C, d + r * C, C);
  }
  done(-1);
}

void gpt2_update(GPT2& model, std::vector<float>& m, std::vector<float>& v, float lr, float beta1,
                 float beta2, float eps, float weight_decay, float grad_scale, int step) {
  m.resize(static_cast<std::size_t>(model.num_parameters));
  v.resize(m.size());
  const float rest1 = 1 - std::pow(beta1, static_cast<float>(step));
  const float rest2 = 1 - std::pow(beta2, static_cast<float>(step));
  float *p = model.params_memory.get(), *pm = m.data(), *pv = v.data();
  const float* g = model.grads_memory.get();
  for (Index i = 0; i < model.num_parameters; ++i) {
    const float grad = g[i] * grad_scale;
    pm[i] = beta1 * pm[i] + (1 - beta1) * grad;
    pv[i] = beta2 * pv[i] + (1 - beta2) * grad * grad;
    p[i] -= lr * (pm[i] / rest1 / (std::sqrt(pv[i] / rest2) + eps) + weight_decay * p[i]);
  }
}

Batch::Batch(const Config& config, int step, int first_row) {
  for (int row = first_row; row < first_row + config.batch; ++row) {
    unsigned state =
        12345U + 7919U * static_cast<unsigned>(step) + 104729U * static_cast<unsigned>(row);
    draw(state);
    const auto words = static_cast<unsigned>(config.vocabulary);
    unsigned token = draw(state) % words;
    for (int t = 0; t < config.seq; ++t) {
      inputs.push_back(static_cast<int>(token));
      token = draw(state) % 8 == 0 ? draw(state) % words : (5 * token + 7) % words;
      targets.push_back(static_cast<int>(token));
    }
  }
}
