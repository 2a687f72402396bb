// Hugging Face GPT-2 folders made by transformers: read whole and by shard, exported again bit for
// bit.
#include "ashlar/pretrained.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "ashlar/error.hpp"
#include "sharding/full_disk.hpp"
#include "sharding/safetensors.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;
using namespace ashlar::test;

namespace {

namespace fs = std::filesystem;

fs::path data(const std::string& name) { return fs::path(ASHLAR_TEST_DIR) / "oracle/data" / name; }

/// The parameters of a GPT-2 with this config.json.
std::vector<Parameter> gpt2_parameters(const fs::path& folder) {
  const auto config = nlohmann::json::parse(slurp(folder / "config.json"));
  const std::int64_t c = config.at("n_embd"), v = config.at("vocab_size");
  const std::int64_t inner =
      config.at("n_inner").is_null() ? 4 * c : config.at("n_inner").get<std::int64_t>();
  std::vector<Parameter> parameters;
  const auto add = [&](const std::string& name, Shape shape) {
    Parameter parameter;
    parameter.name = name;
    parameter.shape = shape;
    parameters.push_back(parameter);
  };
  add("wte.weight", {v, c});
  add("wpe.weight", {config.at("n_positions").get<std::int64_t>(), c});
  for (int i = 0; i < config.at("n_layer"); ++i) {
    const std::string h = "h." + std::to_string(i) + ".";
    for (const std::string norm : {"ln_1", "ln_2"}) {
      add(h + norm + ".weight", {c});
      add(h + norm + ".bias", {c});
    }
    add(h + "attn.c_attn.weight", {c, 3 * c});
    add(h + "attn.c_attn.bias", {3 * c});
    add(h + "attn.c_proj.weight", {c, c});
    add(h + "attn.c_proj.bias", {c});
    add(h + "mlp.c_fc.weight", {c, inner});
    add(h + "mlp.c_fc.bias", {inner});
    add(h + "mlp.c_proj.weight", {inner, c});
    add(h + "mlp.c_proj.bias", {c});
  }
  add("ln_f.weight", {c});
  add("ln_f.bias", {c});
  if (!config.value("tie_word_embeddings", true)) add("lm_head.weight", {v, c});
  return parameters;
}

std::vector<float> read_whole(PretrainedWeights& weights, const Parameter& parameter) {
  std::vector<float> values(static_cast<std::size_t>(parameter.shape.elements()));
  weights.read_part(parameter, 0, {values.data(), DType::f32, {parameter.shape.elements()}});
  return values;
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

void export_copy(const fs::path& from, const fs::path& to, int ranks, DType dtype = DType::f32) {
  const auto parameters = gpt2_parameters(from);
  launch_threads(ranks, [&](Communicator& communicator) {
    PretrainedWeights weights(from);
    export_pretrained(communicator, to, parameters, dtype, slurp(from / "config.json"),
                      [&](int p, TensorView values) {
                        communicator.barrier("a collective read");
                        if (communicator.rank() == 0)
                          weights.read_part(parameters[static_cast<std::size_t>(p)], 0, values);
                        else
                          CHECK(values.data == nullptr);
                      });
  });
}

}  // namespace

TEST_CASE("pretrained: folders by transformers match their config, names with and without prefix") {
  for (const char* name : {"gpt2_tied", "gpt2_untied", "gpt2_sharded"}) {
    CAPTURE(name);
    PretrainedWeights weights(data(name));
    const auto parameters = gpt2_parameters(data(name));
    weights.require_match(parameters);
    double sum = 0;
    for (const Parameter& parameter : parameters)
      for (const float value : read_whole(weights, parameter)) sum += value * value;
    CHECK(sum > 1);
  }
}

TEST_CASE("pretrained: any part of a tensor equals that part of the whole") {
  PretrainedWeights weights(data("gpt2_tied"));
  std::mt19937 random(2);
  for (const Parameter& parameter : gpt2_parameters(data("gpt2_tied"))) {
    const auto whole = read_whole(weights, parameter);
    const std::size_t first = random() % whole.size();
    const std::size_t count = random() % (whole.size() - first + 1);
    std::vector<bf16> part(count);
    weights.read_part(parameter, static_cast<std::int64_t>(first),
                      {part.data(), DType::bf16, {static_cast<std::int64_t>(count)}});
    for (std::size_t i = 0; i < count; ++i) REQUIRE(part[i].bits == bf16(whole[first + i]).bits);
  }
}

TEST_CASE("pretrained: an export holds the same bits under transformers' names") {
  const TemporaryFolder folder;
  for (const char* name : {"gpt2_tied", "gpt2_untied", "gpt2_sharded"}) {
    CAPTURE(name);
    const auto target = folder / name;
    export_copy(data(name), target, 3);
    CHECK(slurp(target / "config.json") == slurp(data(name) / "config.json"));
    SafetensorsFile file(target / "model.safetensors");
    CHECK(file.metadata().at("format") == "pt");
    PretrainedWeights original(data(name)), copy(target);
    const auto parameters = gpt2_parameters(target);
    copy.require_match(parameters);
    CHECK(file.entries().size() == parameters.size());
    for (const Parameter& parameter : parameters) {
      const bool head = parameter.name == "lm_head.weight";
      CHECK(file.find(head ? parameter.name : "transformer." + parameter.name) != nullptr);
      const auto a = read_whole(original, parameter), b = read_whole(copy, parameter);
      REQUIRE(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("pretrained: an export in bf16 rounds once") {
  const TemporaryFolder folder;
  export_copy(data("gpt2_tied"), folder.path, 1, DType::bf16);
  PretrainedWeights original(data("gpt2_tied")), copy(folder.path);
  for (const Parameter& parameter : gpt2_parameters(folder.path)) {
    const auto a = read_whole(original, parameter), b = read_whole(copy, parameter);
    for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(b[i] == float(bf16(a[i])));
  }
}

TEST_CASE("pretrained: a config that lies is refused with the tensor's name") {
  PretrainedWeights weights(data("gpt2_tied"));
  const auto parameters = gpt2_parameters(data("gpt2_tied"));
  const auto refused = [&](const auto& change, const std::string& words) {
    auto changed = parameters;
    change(changed);
    const std::string said = refusal([&] { weights.require_match(changed); });
    CHECK_MESSAGE(contains(said, words), said);
    CHECK(contains(said, data("gpt2_tied").string()));
  };
  refused([](auto& p) { p[0].shape = {65, 32}; }, "'transformer.wte.weight' is [64, 32]");
  refused([](auto& p) { p.pop_back(); }, "'transformer.ln_f.bias' is unknown");
  refused(
      [](auto& p) {
        p.push_back({.name = "lm_head.weight", .shape = {64, 32}});
      },
      "no tensor 'lm_head.weight'");
  PretrainedWeights untied(data("gpt2_untied"));
  auto tied = gpt2_parameters(data("gpt2_untied"));
  tied.pop_back();
  CHECK(contains(refusal([&] { untied.require_match(tied); }), "tie_word_embeddings"));
}

TEST_CASE("pretrained: missing, truncated and foreign files are refused by name") {
  const TemporaryFolder folder;
  const auto open = [&] { return refusal([&] { PretrainedWeights weights(folder.path); }); };
  CHECK(contains(open(), "no weights in " + folder.path.string()));
  spill(folder / "model.safetensors.index.json", "{}");
  CHECK(contains(open(), "no weight_map"));
  spill(folder / "model.safetensors.index.json", R"({"weight_map":{"w":"../x"}})");
  CHECK(contains(open(), "'w' lies in no file"));
  spill(folder / "model.safetensors.index.json", R"({"weight_map":{"w":"x.safetensors"}})");
  CHECK(contains(open(), "x.safetensors: No such file"));
  fs::copy(data("gpt2_tied") / "model.safetensors", folder / "x.safetensors");
  CHECK(contains(open(), "there is no tensor 'w'"));
  const std::string whole = slurp(folder / "x.safetensors");
  spill(folder / "model.safetensors", whole.substr(0, whole.size() - 5));
  CHECK(contains(open(), "model.safetensors: truncated: tensor"));
}

TEST_CASE(
    "pretrained: an export that fails does so on every rank and leaves the folder as it was") {
  const TemporaryFolder folder;
  const auto refused = [&](const fs::path& target) {
    return refusal([&] { export_copy(data("gpt2_tied"), target, 2); });
  };
  spill(folder / "file", "");
  CHECK(contains(refused(folder / "file/model"), (folder / "file").string()));
  export_copy(data("gpt2_untied"), folder / "model", 1);
  const std::string before = slurp(folder / "model/model.safetensors");
  {
    const FullDisk full(20000);
    CHECK(contains(refused(folder / "model"), (folder / "model/model.safetensors").string()));
  }
  CHECK(slurp(folder / "model/model.safetensors") == before);
  CHECK(std::distance(fs::directory_iterator(folder / "model"), {}) == 2);
}
