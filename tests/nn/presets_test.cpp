// Published models: their sizes as published.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "ashlar/error.hpp"
#include "ashlar/nn/language_model.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

namespace {

std::int64_t parameters(const LanguageModel& model) {
  Tracer tracer;
  model.loss(tracer, {1, 8, DType::f32, 0, {}});
  std::int64_t sum = 0;
  for (const Parameter& p : tracer.graph().parameters) sum += p.shape.elements();
  return sum;
}

}  // namespace

TEST_CASE("presets: exact sizes where they are published") {
  // The models' cards and, of mpt, n_params of llm-foundry's benchmarks.
  const std::map<std::string, std::int64_t> sizes{
      {"gpt2", 124439808},         {"gpt2-xl", 1557611200},     {"mpt-125m", 125311488},
      {"mpt-350m", 355985408},     {"mpt-760m", 760470528},     {"mpt-1b", 1315950592},
      {"mpt-3b", 2651837440},      {"mpt-7b", 6658859008},      {"mpt-13b", 12853954560},
      {"mpt-30b", 29975214080},    {"mpt-70b", 64862437376},    {"llama2-7b", 6738415616},
      {"llama2-13b", 13015864320}, {"llama2-70b", 68976648192}, {"llama-70b", 68976648192},
      {"llama3-8b", 8030261248},   {"mistral-7b", 7241732096}};
  for (const auto& [name, size] : sizes) {
    CAPTURE(name);
    CHECK(parameters(language_model(name)) == size);
  }
}

TEST_CASE("presets: Megatron's sizes by the formula of the paper") {
  // Narayanan et al., arXiv:2104.04473, equation 2: P = 12 l h^2 (1 + 13/(12h) + (V+s)/(12lh)).
  const std::map<std::string, double> billions{{"megatron-1.7b", 1.7},   {"megatron-3.6b", 3.6},
                                               {"megatron-7.5b", 7.5},   {"megatron-18b", 18.4},
                                               {"megatron-39b", 39.1},   {"megatron-76b", 76.1},
                                               {"megatron-145b", 145.6}, {"megatron-310b", 310.1},
                                               {"megatron-530b", 529.6}, {"megatron-1t", 1008.0}};
  for (const auto& [name, size] : billions) {
    CAPTURE(name);
    CHECK(std::abs(static_cast<double>(parameters(language_model(name))) / 1e9 - size) < 0.06);
  }
}

TEST_CASE("presets: every name is a model; others are told the nearest") {
  for (const std::string& name : model_presets()) CHECK(language_model(name).layers() > 0);
  CHECK(message_of<InvalidArgument>([] { language_model("megatron-1tt"); }).find("megatron-1t") !=
        std::string::npos);
}

TEST_CASE("presets: GPT has a vector per position, Llama none") {
  const LanguageModel mpt = language_model("mpt-30b").with_positions(8192);
  CHECK(parameters(mpt) == 30019254272);
  CHECK(parameters(language_model("llama-7b").with_positions(8192)) ==
        parameters(language_model("llama-7b")));
}

TEST_CASE("presets: a mistral config.json is a Llama within its window") {
  const TemporaryFolder folder;
  const std::string sizes = R"({"model_type": "mistral", "architectures": ["MistralForCausalLM"],
      "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
      "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
      "max_position_embeddings": 512, "sliding_window": )";
  const auto positions = [&](const std::string& window) {
    return language_model(folder.write("config.json", sizes + window + "}").string()).positions();
  };
  CHECK(positions("null") == 512);
  CHECK(positions("128") == 128);
  CHECK(positions("1024") == 512);
}
