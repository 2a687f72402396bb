#include "ashlar/nn/language_model.hpp"

#include "nn/config_file.hpp"
#include "nn/decoder.hpp"
#include "nn/presets.hpp"

namespace ashlar {

const std::string& LanguageModel::name() const {
  return std::visit([](const auto& c) -> const std::string& { return c.name; }, config_);
}

std::int64_t LanguageModel::vocabulary() const {
  return std::visit([](const auto& c) { return c.vocabulary; }, config_);
}

bool LanguageModel::tied() const {
  return std::visit([](const auto& c) { return c.tied; }, config_);
}

std::int64_t LanguageModel::layers() const {
  return std::visit([](const auto& c) { return c.layers; }, config_);
}

std::int64_t LanguageModel::heads() const {
  return std::visit([](const auto& c) { return c.heads; }, config_);
}

std::int64_t LanguageModel::width() const {
  return std::visit([](const auto& c) { return c.width; }, config_);
}

std::int64_t LanguageModel::positions() const {
  return std::visit([](const auto& c) { return c.positions; }, config_);
}

std::int64_t LanguageModel::block_channels() const {
  if (const auto* gpt = std::get_if<GptConfig>(&config_)) return 5 * gpt->width + gpt->inner;
  const auto& c = std::get<LlamaConfig>(config_);
  return (c.heads + 2 * c.kv_heads) * c.head_size + 2 * c.width + 2 * c.inner;
}

LanguageModel LanguageModel::with_positions(std::int64_t positions) const {
  LanguageModel other = *this;
  std::visit([&](auto& c) { c.positions = positions; }, other.config_);
  return other;
}

Value LanguageModel::loss(Tracer& tracer, const ModelTrace& how) const {
  return std::visit([&](const auto& c) { return decoder(tracer, c, how)->loss(); }, config_);
}

void LanguageModel::logits(Tracer& tracer, const ModelTrace& how) const {
  std::visit([&](const auto& c) { decoder(tracer, c, how)->logits(); }, config_);
}

void LanguageModel::next_token(Tracer& tracer, const ModelTrace& how) const {
  std::visit([&](const auto& c) { decoder(tracer, c, how)->next_token(); }, config_);
}

std::string LanguageModel::config_json(std::string_view torch_dtype) const {
  return std::visit([&](const auto& c) { return to_config_json(c, torch_dtype); }, config_);
}

LanguageModel language_model(const std::string& name) {
  if (const auto preset = llama_preset(name)) return *preset;
  if (gpt_preset(name) || !is_config_path(name)) return gpt_config(name);
  const ConfigFile file(name, "language model");
  file.require("model_type", {"gpt2", "llama", "mistral"});
  if (file.is("model_type", "llama") || file.is("model_type", "mistral")) return llama_config(name);
  return gpt_config(name);
}

}  // namespace ashlar
