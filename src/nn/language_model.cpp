#include "ashlar/nn/language_model.hpp"

#include <algorithm>

#include "nn/config_file.hpp"
#include "nn/decoder.hpp"

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
  if (!is_config_path(name) || std::ranges::find(gpt_presets(), name) != gpt_presets().end())
    return gpt_config(name);
  const ConfigFile file(name, "language model");
  file.require("model_type", {"gpt2", "llama"});
  if (file.is("model_type", "llama")) return llama_config(name);
  return gpt_config(name);
}

}  // namespace ashlar
