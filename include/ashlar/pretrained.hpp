// Hugging Face folders of GPT-2 and Llama (config.json and safetensors): weights read by range, so
// that a shard is read as a shard, and written one parameter at a time, so that no rank holds a
// whole model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "ashlar/communicator.hpp"
#include "ashlar/sharding.hpp"
#include "ashlar/train_step.hpp"

namespace ashlar {

/// Replaces all parameters of a step by a folder's; every rank reads only the parts that it owns.
/// Parameters are found by name, see PretrainedWeights; LanguageModel gives them the names of
/// transformers. Collective.
/// @throws InvalidArgument, the same message on every rank, naming file and tensor.
void load_pretrained(Communicator& communicator, const std::filesystem::path& folder,
                     TrainStep& train);

/// Writes model.safetensors and then config.json so that transformers'
/// AutoModelForCausalLM.from_pretrained opens the folder; each appears whole or not at all. Rank 0
/// writes; its memory holds one parameter at a time. A tied head is no parameter and is not
/// written. Collective.
/// @param dtype of the file: f32, or bf16/f16 rounded to nearest even.
/// @param config_json as LanguageModel::config_json makes it.
/// @throws InvalidArgument naming the path, the same message on every rank.
void export_pretrained(Communicator& communicator, const std::filesystem::path& folder,
                       TrainStep& train, DType dtype, std::string_view config_json);

/// The safetensors of a folder: model.safetensors, or the parts that model.safetensors.index.json
/// lists. Tensors are found by their name with or without "transformer." and have the layout that
/// the file gives them: [in, out] in GPT-2, [out, in] in Llama. One thread at a time.
class PretrainedWeights {
 public:
  /// Reads the headers. @throws InvalidArgument, CorruptCheckpoint naming the file (and the
  /// tensor).
  explicit PretrainedWeights(const std::filesystem::path& folder);
  ~PretrainedWeights();
  PretrainedWeights(PretrainedWeights&&) noexcept;

  /// Every parameter is there in its shape, and nothing is left over but the attention masks and
  /// rotary frequencies that old files carry and a head equal to the token embedding. @throws
  /// InvalidArgument naming folder and tensor.
  void require_match(std::span<const Parameter> parameters);
  /// Elements [first, first + n) of a parameter, converted to the type of `part` ([n], contiguous).
  /// @throws InvalidArgument, CorruptCheckpoint naming file and tensor.
  void read_part(const Parameter& parameter, std::int64_t first, TensorView part);

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

/// Gives the whole parameter with this index as f32 in `values` on rank 0; other ranks get an empty
/// view. Collective.
using ParameterReader = std::function<void(int parameter, TensorView values)>;

/// export_pretrained for parameters that no TrainStep holds.
void export_pretrained(Communicator& communicator, const std::filesystem::path& folder,
                       std::span<const Parameter> parameters, DType dtype,
                       std::string_view config_json, const ParameterReader& read);

}  // namespace ashlar
