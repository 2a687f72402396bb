// A GPT-2 in the style of llm.c's train_gpt2.c: all parameters in one buffer, all gradients in
// another, and structs of pointers into them. Each of a layer's tensors is stacked over the layers.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "layers.hpp"

struct Config {
  int layers = 2, heads = 2, channels = 32, vocabulary = 64, seq = 16, batch = 4;
  int steps = 8;
};

/// --layers 2 --heads 2 …; ends the program with a usage line otherwise.
Config read_arguments(int argc, char** argv);

struct Tensors {  // in the order in which they lie in memory
  float *wte, *wpe, *ln1w, *ln1b, *qkvw, *qkvb, *attprojw, *attprojb, *ln2w, *ln2b, *fcw, *fcb,
      *fcprojw, *fcprojb, *lnfw, *lnfb;
};

constexpr int kTensors = 16;

struct Activations {  // stacked over the layers, but for the last line
  float *residual, *ln1, *qkv, *weights, *atty, *middle, *ln2, *fc, *gelu;  // residual: layers + 1
  Normed norm1, norm2;
  float *lnf, *probabilities;
  Normed normf;
};

struct GPT2 {
  Config config;
  Index sizes[kTensors];  // of one layer, where there are layers
  Index num_parameters;
  std::unique_ptr<float[]> params_memory, grads_memory, acts_memory;
  Tensors params, grads;
  Activations acts;
  const int *inputs, *targets;
};

GPT2 gpt2_create(const Config& config);

/// A tensor of the model, or one layer's part of it: where it begins in params_memory and in
/// grads_memory.
struct Part {
  std::string name;  // "wte", "h.3.fcw"
  Index offset, count;
};
/// What forward uses, and backward completes, together: of layer -1 wte and wpe, of layer `layers`
/// lnfw and lnfb.
std::vector<Part> gpt2_parts(const GPT2& model, int layer);
/// @param inputs, targets [batch, seq], kept for backward
/// @return the mean loss.
float gpt2_forward(GPT2& model, const int* inputs, const int* targets);
void gpt2_zero_grad(GPT2& model);
/// Adds to the gradients. Once per step, after forward.
/// @param done called as soon as the gradients of a layer are complete, from `layers` down to -1
void gpt2_backward(
    GPT2& model, const std::function<void(int)>& done = [](int) {});
/// AdamW on the whole buffer; m and v have a value per parameter.
/// @param grad_scale multiplies the gradients @param step from 1 on
void gpt2_update(GPT2& model, std::vector<float>& m, std::vector<float>& v, float lr, float beta1,
                 float beta2, float eps, float weight_decay, float grad_scale, int step);

/// Sequences that can be learnt: most tokens follow from the one before. Row `row` of step `step`
/// is the same whoever computes it.
struct Batch {
  std::vector<int> inputs, targets;
  Batch(const Config& config, int step, int first_row);
};
