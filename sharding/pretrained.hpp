// Hugging Face GPT-2 folders: weights read by range, so that a shard is read as a shard, and
// written one parameter at a time, so that no rank holds a whole model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "ashlar/communicator.hpp"
#include "ashlar/sharding.hpp"
#include "sharding/safetensors.hpp"

namespace ashlar {

/// The safetensors of a folder: model.safetensors, or the parts that model.safetensors.index.json
/// lists. Tensors are found by their name with or without "transformer."; Conv1D weights are [in,
/// out], as y = x W + b wants them.
class PretrainedWeights {
 public:
  /// Reads the headers. @throws InvalidArgument, CorruptCheckpoint naming the file (and the
  /// tensor).
  explicit PretrainedWeights(const std::filesystem::path& folder);

  /// Every parameter is there in its shape, and nothing is left over but the attention masks that
  /// old files carry and a head equal to the token embedding. @throws InvalidArgument naming folder
  /// and tensor.
  void require_match(std::span<const Parameter> parameters);
  /// Elements [first, first + n) of a parameter, converted to the type of `part` ([n], contiguous).
  /// @throws InvalidArgument, CorruptCheckpoint naming file and tensor.
  void read_part(const Parameter& parameter, std::int64_t first, TensorView part);

 private:
  struct Place {
    SafetensorsFile* file = nullptr;
    const SafetensorsEntry* entry = nullptr;
  };

  SafetensorsFile& open(const std::string& file);
  void open_parts(const std::filesystem::path& index);
  void add(SafetensorsFile& file, const SafetensorsEntry& entry);
  const Place& find(const Parameter& parameter) const;
  void require_tied_head();

  std::filesystem::path folder_;
  std::map<std::string, SafetensorsFile> files_;
  std::map<std::string, Place, std::less<>> tensors_;  // by name without "transformer."
};

/// Gives the whole parameter with this index as f32 in `values` on rank 0; other ranks get an empty
/// view. Collective.
using ParameterReader = std::function<void(int parameter, TensorView values)>;

/// Writes model.safetensors and then config.json so that transformers'
/// GPT2LMHeadModel.from_pretrained opens the folder; each appears whole or not at all. Rank 0
/// writes; its memory holds one parameter at a time. A tied head is no parameter and is not
/// written. Collective.
/// @param dtype of the file: f32, or bf16/f16 rounded to nearest even.
/// @throws InvalidArgument naming the path, the same message on every rank.
void export_pretrained(Communicator& communicator, const std::filesystem::path& folder,
                       std::span<const Parameter> parameters, DType dtype,
                       std::string_view config_json, const ParameterReader& read);

}  // namespace ashlar
