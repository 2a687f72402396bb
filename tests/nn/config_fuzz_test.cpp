// Files that are nearly a config.json: read as they say, or refused in one line that names them.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "ashlar/error.hpp"
#include "ashlar/nn/language_model.hpp"
#include "support/temporary_folder.hpp"

using namespace ashlar;

namespace {

using Json = nlohmann::json;

const std::vector<Json>& good_configs() {
  static const std::vector<Json> all = [] {
    std::vector<Json> made;
    for (const char* name : {"gpt2", "llama2-7b"})
      made.push_back(Json::parse(language_model(name).config_json("float32")));
    made.push_back(made[1]);
    made[2]["model_type"] = "mistral";
    made[2]["architectures"] = {"MistralForCausalLM"};
    made[2]["sliding_window"] = 128;
    made[2]["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}};
    return made;
  }();
  return all;
}

/// What is read is a model, and what it writes is read as the same one.
void check_read(const LanguageModel& model, const TemporaryFolder& folder) {
  CHECK(model.layers() >= 1);
  CHECK(model.heads() >= 1);
  CHECK(model.positions() >= 1);
  CHECK(model.vocabulary() >= 1);
  const auto again =
      language_model(folder.write("again.json", model.config_json("float32")).string());
  CHECK(again.layers() == model.layers());
  CHECK(again.heads() == model.heads());
  CHECK(again.width() == model.width());
  CHECK(again.positions() == model.positions());
  CHECK(again.vocabulary() == model.vocabulary());
  CHECK(again.block_channels() == model.block_channels());
  CHECK(again.tied() == model.tied());
}

/// @return whether it was read
bool read_or_refused(const std::string& text, const TemporaryFolder& folder) {
  const std::string path = folder.write("config.json", text).string();
  try {
    check_read(language_model(path), folder);
    return true;
  } catch (const InvalidArgument& error) {
    const std::string line = error.what();
    CAPTURE(line);
    CHECK(line.starts_with(path));
    CHECK(line.find_first_of("\n\r") == std::string::npos);
    CHECK(line.size() < path.size() + 400);
  }
  return false;
}

}  // namespace

TEST_CASE("config: mutated bytes are read or refused, never worse") {
  const TemporaryFolder folder;
  std::mt19937 random(41);
  int read = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    std::string text = good_configs()[random() % good_configs().size()].dump(2);
    for (auto n = 1 + random() % 4; n > 0; --n) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 40);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), random() % 60));
          break;
        default:
          text.insert(at, 1, "{}[]\",:0-e\\"[random() % 11]);
      }
      if (text.empty()) text = " ";
    }
    read += read_or_refused(text, folder) ? 1 : 0;
  }
  CHECK(read > 100);
}

TEST_CASE("config: any value under any key is read or refused, never worse") {
  const TemporaryFolder folder;
  std::mt19937 random(42);
  const std::vector<Json> values{nullptr,
                                 true,
                                 -1,
                                 0,
                                 1,
                                 7,
                                 1 << 20,
                                 INT64_MAX,
                                 UINT64_MAX,
                                 1e308,
                                 -0.5,
                                 "",
                                 "gpt2",
                                 "llama",
                                 "mistral",
                                 "two\nlines\r\x1b[2J",
                                 std::string(5000, 'x'),
                                 "\u00e9\u4e2d",
                                 Json::array(),
                                 {1, -1, 1e99},
                                 Json::object(),
                                 {{"rope_type", "yarn"}, {"factor", 2}}};
  int read = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    Json json = good_configs()[random() % good_configs().size()];
    std::vector<std::string> keys;
    for (const auto& [key, value] : json.items()) keys.push_back(key);
    for (auto n = 1 + random() % 3; n > 0; --n) {
      const std::string& key = keys[random() % keys.size()];
      if (random() % 5 == 0) {
        json.erase(key);
      } else {
        json[key] = values[random() % values.size()];
      }
    }
    read += read_or_refused(json.dump(), folder) ? 1 : 0;
  }
  CHECK(read > 100);
}

TEST_CASE("config: nesting that would exhaust a stack is refused") {
  const TemporaryFolder folder;
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  for (const char* key : {"n_layer", "model_type", "rope_scaling", "comment"}) {
    Json json = good_configs()[std::string(key) == "rope_scaling" ? 1 : 0];
    json[key] = "HERE";
    std::string text = json.dump();
    text.replace(text.find("\"HERE\""), 6, deep);
    CHECK(!read_or_refused(text, folder));
  }
  CHECK(!read_or_refused(std::string(1'000'000, '['), folder));
}
