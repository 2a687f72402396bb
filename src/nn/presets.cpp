#include "nn/presets.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "ashlar/nn/language_model.hpp"

namespace ashlar {
namespace {

struct GptSize {
  std::string_view name;
  std::int64_t layers, heads, width, positions, vocabulary;
};

// gpt2: Radford et al. 2019, table 2, and the published config.json files. gpt3: Brown et al.,
// arXiv:2005.14165, table 2.1 (heads of 1.3b and width of 13b as they multiply out). megatron:
// Narayanan et al., arXiv:2104.04473, table 1; 22b: Korthikanti et al., arXiv:2205.05198, table 3.
// mpt: llm-foundry's benchmarks, whose models are GPT-2's with another vocabulary.
constexpr auto kGpts = std::to_array<GptSize>({
    {"tiny", 4, 4, 128, 256, 256},
    {"small", 6, 6, 384, 256, 256},
    {"gpt2", 12, 12, 768, 1024, 50257},
    {"gpt2-medium", 24, 16, 1024, 1024, 50257},
    {"gpt2-large", 36, 20, 1280, 1024, 50257},
    {"gpt2-xl", 48, 25, 1600, 1024, 50257},
    {"gpt3-125m", 12, 12, 768, 2048, 50257},
    {"gpt3-350m", 24, 16, 1024, 2048, 50257},
    {"gpt3-760m", 24, 16, 1536, 2048, 50257},
    {"gpt3-1.3b", 24, 16, 2048, 2048, 50257},
    {"gpt3-2.7b", 32, 32, 2560, 2048, 50257},
    {"gpt3-6.7b", 32, 32, 4096, 2048, 50257},
    {"gpt3-13b", 40, 40, 5120, 2048, 50257},
    {"gpt3-175b", 96, 96, 12288, 2048, 50257},
    {"megatron-1.7b", 24, 24, 2304, 2048, 51200},
    {"megatron-3.6b", 30, 32, 3072, 2048, 51200},
    {"megatron-7.5b", 36, 32, 4096, 2048, 51200},
    {"megatron-18b", 40, 48, 6144, 2048, 51200},
    {"megatron-22b", 48, 64, 6144, 2048, 51200},
    {"megatron-39b", 48, 64, 8192, 2048, 51200},
    {"megatron-76b", 60, 80, 10240, 2048, 51200},
    {"megatron-145b", 80, 96, 12288, 2048, 51200},
    {"megatron-175b", 96, 96, 12288, 2048, 51200},
    {"megatron-310b", 96, 128, 16384, 2048, 51200},
    {"megatron-530b", 105, 128, 20480, 2048, 51200},
    {"megatron-1t", 128, 160, 25600, 2048, 51200},
    {"mpt-125m", 12, 12, 768, 2048, 50368},
    {"mpt-350m", 24, 16, 1024, 2048, 50368},
    {"mpt-760m", 24, 12, 1536, 2048, 50368},
    {"mpt-1b", 24, 16, 2048, 2048, 50368},
    {"mpt-3b", 32, 20, 2560, 2048, 50368},
    {"mpt-7b", 32, 32, 4096, 2048, 50368},
    {"mpt-13b", 40, 40, 5120, 2048, 50368},
    {"mpt-30b", 48, 56, 7168, 2048, 50368},
    {"mpt-70b", 80, 64, 8192, 2048, 50368},
});

struct LlamaSize {
  std::string_view name;
  std::int64_t layers, heads, kv_heads, width, inner, positions, vocabulary;
  double epsilon, rotary_base;
};

// llama: Touvron et al., arXiv:2302.13971, table 2; llama2: arXiv:2307.09288; llama3: Dubey et al.,
// arXiv:2407.21783, table 3, before its longer contexts; mistral: Jiang et al., arXiv:2310.06825,
// table 1, without a sliding window (v0.2). Inner widths, bases: the published config.json files.
constexpr auto kLlamas = std::to_array<LlamaSize>({
    {"llama-7b", 32, 32, 32, 4096, 11008, 2048, 32000, 1e-6, 10000},
    {"llama-13b", 40, 40, 40, 5120, 13824, 2048, 32000, 1e-6, 10000},
    {"llama-33b", 60, 52, 52, 6656, 17920, 2048, 32000, 1e-6, 10000},
    {"llama-65b", 80, 64, 64, 8192, 22016, 2048, 32000, 1e-6, 10000},
    {"llama2-7b", 32, 32, 32, 4096, 11008, 4096, 32000, 1e-5, 10000},
    {"llama2-13b", 40, 40, 40, 5120, 13824, 4096, 32000, 1e-5, 10000},
    {"llama2-70b", 80, 64, 8, 8192, 28672, 4096, 32000, 1e-5, 10000},
    {"llama3-8b", 32, 32, 8, 4096, 14336, 8192, 128256, 1e-5, 500000},
    {"llama3-70b", 80, 64, 8, 8192, 28672, 8192, 128256, 1e-5, 500000},
    {"mistral-7b", 32, 32, 8, 4096, 14336, 32768, 32000, 1e-5, 1000000},
});

std::string_view known_as(std::string_view name) {
  return name == "llama-70b" ? "llama2-70b" : name;  // the only 70b without a number was the second
}

template <typename Sizes>
auto find(const Sizes& sizes, std::string_view name) {
  return std::ranges::find(sizes, known_as(name), [](const auto& size) { return size.name; });
}

}  // namespace

std::optional<GptConfig> gpt_preset(std::string_view name) {
  const auto size = find(kGpts, name);
  if (size == kGpts.end()) return std::nullopt;
  GptConfig config;
  config.name = name;
  config.layers = size->layers;
  config.heads = size->heads;
  config.width = size->width;
  config.positions = size->positions;
  config.vocabulary = size->vocabulary;
  config.inner = 4 * size->width;
  return config;
}

std::optional<LlamaConfig> llama_preset(std::string_view name) {
  const auto size = find(kLlamas, name);
  if (size == kLlamas.end()) return std::nullopt;
  LlamaConfig config;
  config.name = name;
  config.layers = size->layers;
  config.heads = size->heads;
  config.kv_heads = size->kv_heads;
  config.head_size = size->width / size->heads;
  config.width = size->width;
  config.inner = size->inner;
  config.positions = size->positions;
  config.vocabulary = size->vocabulary;
  config.epsilon = size->epsilon;
  config.rotary_base = size->rotary_base;
  return config;
}

std::vector<std::string> model_presets() {
  std::vector<std::string> names;
  for (const GptSize& size : kGpts) names.emplace_back(size.name);
  for (const LlamaSize& size : kLlamas) names.emplace_back(size.name);
  names.emplace_back("llama-70b");
  return names;
}

}  // namespace ashlar
