// The flags of wrap_torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "ashlar/communicator.hpp"

namespace wrapped {

struct Options {
  std::string help;                // not empty when --help was given
  std::string model = "cnn";       // cnn | transformer, of images; tiny | 30m | gpt2, of tokens
  bool synthetic = false;          // random tokens, for models of tokens
  std::string data;                // folder of images
  std::int64_t batch = 32;         // samples per rank
  std::int64_t seq = 256;          // tokens per sample
  std::int64_t steps = 0;          // 0: as --epochs says
  std::int64_t epochs = 1;         // over the images
  int stage = 3;                   // ZeRO's
  std::string precision = "fp32";  // fp32 | bf16
  double lr = 0;                   // 0: 1e-3 for images, 3e-4 for tokens
  double clip = 0;                 // of the gradients' norm; 0: off
  int ranks = 1;                   // as threads
  int threads = 0;                 // per rank; 0: the cores of the node / its ranks
  std::uint64_t seed = 1;
  double at_least = 0;  // exit 1 below this accuracy, in per cent
  std::filesystem::path metrics;

  bool images() const { return model == "cnn" || model == "transformer"; }
};

/// @throws ashlar::InvalidArgument naming the flag.
Options parse_options(int argc, char** argv);
nlohmann::ordered_json to_json(const Options& options);

/// Trains on images and tells the accuracy; every rank calls it. @return per cent of the test
/// images
double train_classifier(ashlar::Communicator& world, const Options& options);
/// Trains on random tokens and writes metrics; every rank calls it.
void train_language_model(ashlar::Communicator& world, const Options& options);

}  // namespace wrapped
