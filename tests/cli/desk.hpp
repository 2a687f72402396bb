// What the tests of the program share: a folder with a small model and a text, command lines for
// ranks as threads and as processes, and the metrics that a run leaves.
#pragma once

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/process.hpp"
#include "support/temporary_folder.hpp"

namespace cli {

using Json = nlohmann::json;

inline const std::string kTrainGpt = ASHLAR_TRAIN_GPT;

/// A launcher's words, to stand before a program.
inline std::string mpiexec(int ranks) { return fmt::format("{} -n {} ", ASHLAR_MPIEXEC, ranks); }
inline bool has_mpi() { return !std::string(ASHLAR_MPIEXEC).empty(); }

struct Desk {
  TemporaryFolder folder;

  Desk() {
    folder.write("config.json",
                 R"({"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32,
                     "n_positions": 32, "vocab_size": 256, "n_inner": 50})");
    const Words dictionary = words("a block of stone cut to fit the next one makes a wall .");
    std::mt19937 random(5);
    std::string text;
    while (text.size() < 20'000) text += dictionary[random() % dictionary.size()] + ' ';
    folder.write("text.txt", text);
  }

  std::string path(const std::string& name) const { return (folder.path / name).string(); }
  /// The program on the small model.
  std::string loud() const {
    return fmt::format("{} --model {} --text {} --seq 16 --batch 2 --lr 0.003 --threads 1 ",
                       kTrainGpt, path("config.json"), path("text.txt"));
  }
  std::string base() const { return loud() + "--quiet "; }
  std::vector<Json> metrics(const std::string& name) const {
    std::vector<Json> lines;
    std::ifstream file(path(name));
    for (std::string line; std::getline(file, line);) lines.push_back(Json::parse(line));
    return lines;
  }
  /// `key` of every step.
  template <typename T>
  std::vector<T> steps(const std::string& name, const char* key) const {
    std::vector<T> values;
    for (const Json& line : metrics(name))
      if (line.contains(key)) values.push_back(line[key].get<T>());
    return values;
  }
  /// Waits until a run has written this many steps.
  void await_steps(const std::string& name, std::size_t steps) const {
    for (int i = 0; i < 20'000 * kPatience; ++i) {
      std::ifstream file(path(name));
      std::size_t lines = 0;
      for (std::string line; std::getline(file, line);) ++lines;
      if (lines >= steps) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    throw std::runtime_error("the run has made no progress");
  }
  /// Runs `line` with --metrics. @return loss_bits of all steps; none when it failed.
  std::vector<std::string> bits(const std::string& line) const {
    const Finished finished = run(line + " --metrics " + path("bits.jsonl"));
    if (finished.code != 0) return {finished.err};
    return steps<std::string>("bits.jsonl", "loss_bits");
  }
};

}  // namespace cli
