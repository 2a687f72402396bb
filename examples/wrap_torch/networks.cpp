#include "wrap_torch/networks.hpp"

#include <cmath>
#include <limits>

namespace wrapped {
namespace {

namespace nn = torch::nn;

nn::LayerNorm norm_of(std::int64_t width) { return nn::LayerNorm(nn::LayerNormOptions({width})); }

void draw_weights(nn::Module& module) {
  for (const torch::Tensor& p : module.parameters())
    if (p.dim() > 1) nn::init::normal_(p, 0, 0.02);
}

}  // namespace

BlockImpl::BlockImpl(std::int64_t width, std::int64_t heads)
    : heads_(heads),
      ln_1(register_module("ln_1", norm_of(width))),
      ln_2(register_module("ln_2", norm_of(width))),
      qkv(register_module("qkv", nn::Linear(width, 3 * width))),
      proj(register_module("proj", nn::Linear(width, width))),
      up(register_module("up", nn::Linear(width, 4 * width))),
      down(register_module("down", nn::Linear(4 * width, width))) {}

torch::Tensor BlockImpl::attention(const torch::Tensor& x, const torch::Tensor& mask) {
  const std::int64_t B = x.size(0), T = x.size(1), C = x.size(2);
  const auto split = qkv(x).view({B, T, 3, heads_, C / heads_}).permute({2, 0, 3, 1, 4});
  const double scale = 1 / std::sqrt(static_cast<double>(C / heads_));
  auto scores = torch::matmul(split[0] * scale, split[1].transpose(-2, -1));  // (B, heads, T, T)
  if (mask.defined()) scores.add_(mask);
  const auto y = torch::matmul(torch::softmax(scores, -1), split[2]);
  return proj(y.transpose(1, 2).reshape({B, T, C}));
}

torch::Tensor BlockImpl::forward(torch::Tensor x, const torch::Tensor& mask) {
  x = x + attention(ln_1(x), mask);
  return x + down(torch::gelu(up(ln_2(x)), "tanh"));
}

GptImpl::GptImpl(const GptSize& size, std::int64_t tokens)
    : wte(register_module("wte", nn::Embedding(size.vocabulary, size.width))),
      wpe(register_module("wpe", nn::Embedding(tokens, size.width))),
      blocks(register_module("blocks", nn::ModuleList())),
      ln_f(norm_of(size.width)) {
  for (std::int64_t i = 0; i < size.layers; ++i) blocks->push_back(Block(size.width, size.heads));
  register_module("ln_f", ln_f);
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  mask = register_buffer("mask", torch::full({tokens, tokens}, kNever).triu_(1));
  draw_weights(*this);
}

torch::Tensor GptImpl::forward(const torch::Tensor& tokens, const torch::Tensor& targets) {
  const std::int64_t T = tokens.size(1);
  const auto seen = mask.slice(0, 0, T).slice(1, 0, T);
  auto x = wte(tokens) + wpe->weight.slice(0, 0, T);
  for (const auto& block : *blocks) x = block->as<Block>()->forward(x, seen);
  x = nn::functional::linear(ln_f(x), wte->weight).flatten(0, 1).to(torch::kFloat);
  return nn::functional::cross_entropy(x, targets.flatten());
}

ConvolutionalImpl::ConvolutionalImpl() {
  const auto convolution = [](std::int64_t from, std::int64_t to) {
    return nn::Conv2d(nn::Conv2dOptions(from, to, 3).padding(1));
  };
  features = register_module(
      "features",
      nn::Sequential(convolution(1, 32), nn::BatchNorm2d(32), nn::ReLU(), nn::MaxPool2d(2),
                     convolution(32, 64), nn::BatchNorm2d(64), nn::ReLU(), nn::MaxPool2d(2)));
  classes = register_module(
      "classes", nn::Sequential(nn::Linear(64 * 7 * 7, 128), nn::ReLU(), nn::Linear(128, 10)));
}

torch::Tensor ConvolutionalImpl::forward(torch::Tensor images) {
  return classes->forward(features->forward(images).flatten(1));
}

PatchTransformerImpl::PatchTransformerImpl()
    : patches(register_module("patches", nn::Conv2d(nn::Conv2dOptions(1, 64, 7).stride(7)))),
      positions(register_parameter("positions", torch::zeros({16, 64}))),
      blocks(register_module("blocks", nn::ModuleList())),
      norm(norm_of(64)),
      classes(nn::Linear(64, 10)) {
  for (int i = 0; i < 2; ++i) blocks->push_back(Block(64, 4));
  register_module("norm", norm);
  register_module("classes", classes);
}

torch::Tensor PatchTransformerImpl::forward(torch::Tensor images) {
  auto x = patches(images).flatten(2).transpose(1, 2) + positions;  // (B, 16, 64)
  for (const auto& block : *blocks) x = block->as<Block>()->forward(x, {});
  return classes(norm(x).mean(1));
}

}  // namespace wrapped
