// libtorch modules as somebody has them: nothing here knows of Ashlar.
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace wrapped {

/// Attention and a perceptron, each behind a norm and beside a residual path (GPT-2's block).
struct BlockImpl : torch::nn::Module {
  BlockImpl(std::int64_t width, std::int64_t heads);
  /// @param x (B, T, width); mask (T, T), added to the scores; undefined: all positions see all
  torch::Tensor forward(torch::Tensor x, const torch::Tensor& mask);
  torch::Tensor attention(const torch::Tensor& x, const torch::Tensor& mask);

  std::int64_t heads_;
  torch::nn::LayerNorm ln_1, ln_2;
  torch::nn::Linear qkv, proj, up, down;
};
TORCH_MODULE(Block);

struct GptSize {
  std::int64_t layers, heads, width, vocabulary;
};

/// A decoder whose head is its embedding.
struct GptImpl : torch::nn::Module {
  GptImpl(const GptSize& size, std::int64_t tokens);
  /// Mean cross entropy. @param tokens, targets i64 (B, T)
  torch::Tensor forward(const torch::Tensor& tokens, const torch::Tensor& targets);

  torch::nn::Embedding wte, wpe;
  torch::nn::ModuleList blocks;
  torch::nn::LayerNorm ln_f;
  torch::Tensor mask;
};
TORCH_MODULE(Gpt);

/// What maps images (B, 1, 28, 28) to logits (B, 10).
struct ClassifierImpl : torch::nn::Module {
  virtual torch::Tensor forward(torch::Tensor images) = 0;
};

/// Two convolutions with batch norm and pooling, then two linear layers.
struct ConvolutionalImpl : ClassifierImpl {
  ConvolutionalImpl();
  torch::Tensor forward(torch::Tensor images) override;

  torch::nn::Sequential features, classes;
};

/// A sequence of patches of 7 x 7 pixels through two blocks.
struct PatchTransformerImpl : ClassifierImpl {
  PatchTransformerImpl();
  torch::Tensor forward(torch::Tensor images) override;

  torch::nn::Conv2d patches;
  torch::Tensor positions;
  torch::nn::ModuleList blocks;
  torch::nn::LayerNorm norm;
  torch::nn::Linear classes;
};

}  // namespace wrapped
