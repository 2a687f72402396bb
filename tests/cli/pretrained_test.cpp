// Hugging Face folders in and out: what --init read, --export writes, bit for bit.
#include <doctest/doctest.h>

#include <map>

#include "cli/desk.hpp"
#include "sharding/safetensors.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;

const fs::path kData = fs::path(ASHLAR_TEST_DIR) / "oracle" / "data";

/// Every tensor of a folder's safetensors by its name without "transformer.".
std::map<std::string, std::vector<float>> tensors(const fs::path& folder) {
  std::map<std::string, std::vector<float>> all;
  for (const auto& item : fs::directory_iterator(folder)) {
    if (item.path().extension() != ".safetensors" ||
        !item.path().stem().string().starts_with("model"))
      continue;
    ashlar::SafetensorsFile file{ashlar::InputFile(item.path())};
    for (const ashlar::SafetensorsEntry& entry : file.entries()) {
      std::string name = entry.name;
      if (name.starts_with("transformer.")) name = name.substr(12);
      std::vector<float> values(static_cast<std::size_t>(entry.shape.elements()));
      file.read(entry.name, 0, {values.data(), ashlar::DType::f32, {entry.shape.elements()}});
      all[name] = std::move(values);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("pretrained: --init and --export round-trip bit for bit, without and with idle steps") {
  const Desk desk;
  for (const std::string source :
       {"gpt2_tied", "gpt2_untied", "gpt2_sharded", "llama_tied", "llama_untied"}) {
    for (const std::string how : {"--steps 0", "--steps 0 --ranks 3 --stage 3",
                                  "--steps 2 --lr 0 --ranks 2 --synthetic --stage 1"}) {
      CAPTURE(source);
      CAPTURE(how);
      const std::string copy = desk.path("copy"), again = desk.path("again");
      const Finished first = run(fmt::format("{} --init {} --export {} --seq 12 --quiet {}",
                                             kTrainGpt, (kData / source).string(), copy, how));
      REQUIRE_MESSAGE(first.code == 0, first.err);
      const auto expected = tensors(kData / source);
      CHECK(expected.size() >= 16);
      CHECK(tensors(copy) == expected);
      const Finished second = run(fmt::format("{} --init {} --export {} --seq 12 --quiet --steps 0",
                                              kTrainGpt, copy, again));
      REQUIRE_MESSAGE(second.code == 0, second.err);
      CHECK(tensors(again) == expected);
    }
  }
}

TEST_CASE("pretrained: n_inner and untied heads survive the trip; a step changes the weights") {
  const Desk desk;
  desk.folder.write(
      "untied.json",
      R"({"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_inner": 50,
                        "n_positions": 32, "vocab_size": 256, "tie_word_embeddings": false})");
  const std::string out = desk.path("out");
  const Finished made = run(fmt::format("{} --model {} --steps 2 --export {}", desk.base(),
                                        desk.path("untied.json"), out));
  REQUIRE_MESSAGE(made.code == 0, made.err);
  const auto expected = tensors(out);
  CHECK(expected.at("h.0.mlp.c_fc.bias").size() == 50);
  CHECK(expected.contains("lm_head.weight"));
  const Json config = Json::parse(std::ifstream(out + "/config.json"));
  CHECK(config["n_inner"] == 50);
  CHECK(config["tie_word_embeddings"] == false);
  const auto again = [&](const std::string& how) {
    const Finished finished =
        run(fmt::format("{} --init {} --text {} --seq 16 --batch 2 --quiet --export {} {}",
                        kTrainGpt, out, desk.path("text.txt"), desk.path("again"), how));
    REQUIRE_MESSAGE(finished.code == 0, finished.err);
    return tensors(desk.path("again"));
  };
  CHECK(again("--steps 1 --lr 0") == expected);
  CHECK(again("--steps 1 --lr 0.001") != expected);
}

}  // namespace cli
