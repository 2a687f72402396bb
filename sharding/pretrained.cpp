// Names and files of GPT-2 and Llama folders.
#include "ashlar/pretrained.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>

#include "ashlar/error.hpp"
#include "sharding/convert.hpp"
#include "sharding/safetensors.hpp"

namespace ashlar {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kPrefix = "transformer.";
constexpr std::string_view kHead = "lm_head.weight";
constexpr std::string_view kTokenTables[] = {"wte.weight", "model.embed_tokens.weight"};
constexpr std::int64_t kBlock = 1 << 18;

/// What older files carry besides weights: attention masks, rotary frequencies.
bool is_constant(std::string_view name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
         name.ends_with(".rotary_emb.inv_freq");
}

/// Only GPT-2's names come without their beginning.
std::string exported_name(std::string_view name) {
  const bool whole = name == kHead || name.starts_with("model.");
  return whole ? std::string(name) : std::string(kPrefix) + std::string(name);
}

/// Appends f32 values to the writer in its type.
void append(SafetensorsWriter& writer, DType dtype, TensorView values) {
  const std::int64_t count = values.elements();
  std::vector<std::byte> rounded(static_cast<std::size_t>(std::min(kBlock, count)) *
                                 static_cast<std::size_t>(size_of(dtype)));
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const std::int64_t n = std::min(kBlock, count - done);
    const TensorView block(rounded.data(), dtype, {n});
    convert(values.flat_slice(done, n).data, DType::f32, block);
    writer.write(block);
  }
}

}  // namespace

struct PretrainedWeights::Implementation {
  struct Place {
    SafetensorsFile* file = nullptr;
    const SafetensorsEntry* entry = nullptr;
  };

  explicit Implementation(const fs::path& path);
  SafetensorsFile& open(const std::string& file);
  void open_parts(const fs::path& index);
  void add(SafetensorsFile& file, const SafetensorsEntry& entry);
  const Place& find(const Parameter& parameter) const;
  void require_match(std::span<const Parameter> parameters);
  void require_tied_head();

  fs::path folder;
  std::map<std::string, SafetensorsFile> files;
  std::map<std::string, Place, std::less<>> tensors;  // by name without "transformer."
};

PretrainedWeights::Implementation::Implementation(const fs::path& path) : folder(path) {
  const fs::path index = folder / "model.safetensors.index.json";
  if (fs::exists(folder / "model.safetensors")) {
    SafetensorsFile& file = open("model.safetensors");
    for (const SafetensorsEntry& entry : file.entries()) add(file, entry);
  } else if (fs::exists(index)) {
    open_parts(index);
  } else {
    throw InvalidArgument(fmt::format(
        "no weights in {}: it has neither model.safetensors nor model.safetensors.index.json",
        folder.string()));
  }
}

SafetensorsFile& PretrainedWeights::Implementation::open(const std::string& file) {
  const auto found = files.find(file);
  if (found != files.end()) return found->second;
  return files.emplace(file, SafetensorsFile(folder / file)).first->second;
}

void PretrainedWeights::Implementation::open_parts(const fs::path& index) {
  const json parsed = json::parse(read_text(index), nullptr, false);
  const auto map = parsed.is_object() ? parsed.find("weight_map") : parsed.end();
  if (!parsed.is_object() || map == parsed.end() || !map->is_object())
    throw CorruptCheckpoint(fmt::format("{}: no weight_map", index.string()));
  for (const auto& [name, value] : map->items()) {
    const fs::path file = value.is_string() ? value.get<std::string>() : "";
    if (file.empty() || file != file.filename())
      throw CorruptCheckpoint(
          fmt::format("{}: tensor '{}' lies in no file of the folder", index.string(), name));
    SafetensorsFile& part = open(file.string());
    const SafetensorsEntry* entry = part.find(name);
    if (entry == nullptr)
      throw CorruptCheckpoint(fmt::format("{}: there is no tensor '{}', but {} says so",
                                          part.path().string(), name, index.string()));
    add(part, *entry);
  }
}

void PretrainedWeights::Implementation::add(SafetensorsFile& file, const SafetensorsEntry& entry) {
  std::string_view name = entry.name;
  if (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  if (!tensors.emplace(name, Place{&file, &entry}).second)
    throw CorruptCheckpoint(fmt::format("{}: tensor '{}' occurs with and without '{}'",
                                        file.path().string(), name, kPrefix));
}

const PretrainedWeights::Implementation::Place& PretrainedWeights::Implementation::find(
    const Parameter& parameter) const {
  const auto found = tensors.find(parameter.name);
  if (found == tensors.end())
    throw InvalidArgument(fmt::format(
        "{}: there is no tensor '{}', which the model needs; is config.json of these weights?",
        folder.string(), parameter.name));
  return found->second;
}

void PretrainedWeights::Implementation::require_match(std::span<const Parameter> parameters) {
  std::unordered_set<std::string_view> known;
  for (const Parameter& parameter : parameters) {
    known.insert(parameter.name);
    const Place& place = find(parameter);
    if (place.entry->shape != parameter.shape)
      throw InvalidArgument(
          fmt::format("{}: tensor '{}' is {}, the model wants {}; is config.json of these weights?",
                      place.file->path().string(), place.entry->name, to_string(place.entry->shape),
                      to_string(parameter.shape)));
  }
  for (const auto& [name, place] : tensors) {
    if (known.contains(name) || is_constant(name)) continue;
    if (name != kHead)
      throw InvalidArgument(
          fmt::format("{}: tensor '{}' is unknown to the model; is config.json of these weights?",
                      place.file->path().string(), place.entry->name));
    require_tied_head();
  }
}

void PretrainedWeights::Implementation::require_tied_head() {
  auto table = tensors.find(kTokenTables[0]);
  if (table == tensors.end()) table = tensors.find(kTokenTables[1]);
  if (table == tensors.end()) return;
  const auto head = tensors.find(kHead);
  bool equal = table->second.entry->shape == head->second.entry->shape;
  const std::int64_t count = head->second.entry->shape.elements();
  std::vector<float> a(static_cast<std::size_t>(std::min(kBlock, count)));
  std::vector<float> b(a.size());
  for (std::int64_t first = 0; equal && first < count; first += kBlock) {
    const std::int64_t n = std::min(kBlock, count - first);
    for (const auto& [place, values] : {std::pair(table->second, &a), std::pair(head->second, &b)})
      place.file->read(place.entry->name, first, {values->data(), DType::f32, {n}});
    equal = std::memcmp(a.data(), b.data(), static_cast<std::size_t>(n) * sizeof(float)) == 0;
  }
  if (!equal)
    throw InvalidArgument(
        fmt::format("{}: '{}' differs from the token embedding, but the model ties them; set "
                    "tie_word_embeddings to false in config.json",
                    head->second.file->path().string(), kHead));
}

PretrainedWeights::PretrainedWeights(const fs::path& folder)
    : implementation_(std::make_unique<Implementation>(folder)) {}
PretrainedWeights::~PretrainedWeights() = default;
PretrainedWeights::PretrainedWeights(PretrainedWeights&&) noexcept = default;

void PretrainedWeights::require_match(std::span<const Parameter> parameters) {
  implementation_->require_match(parameters);
}

void PretrainedWeights::read_part(const Parameter& parameter, std::int64_t first, TensorView part) {
  const auto& place = implementation_->find(parameter);
  place.file->read(place.entry->name, first, part);
}

void load_pretrained(Communicator& communicator, const fs::path& folder, TrainStep& train) {
  std::optional<PretrainedWeights> weights;
  collectively(communicator, [&] {
    weights.emplace(folder);
    weights->require_match(train.layout().parameters());
  });
  train.load_parameters([&](const Parameter& parameter, std::int64_t first, TensorView part) {
    weights->read_part(parameter, first, part);
  });
}

void export_pretrained(Communicator& communicator, const fs::path& folder, TrainStep& train,
                       DType dtype, std::string_view config_json) {
  export_pretrained(
      communicator, folder, train.layout().parameters(), dtype, config_json,
      [&](int parameter, TensorView values) { train.read_parameter(parameter, values); });
}

void export_pretrained(Communicator& communicator, const fs::path& folder,
                       std::span<const Parameter> parameters, DType dtype,
                       std::string_view config_json, const ParameterReader& read) {
  const bool writes = communicator.rank() == 0;
  std::optional<SafetensorsWriter> writer;
  std::vector<float> values;
  collectively(communicator, [&] {
    if (!writes) return;
    std::int64_t largest = 0;
    std::vector<TensorSpec> tensors;
    for (const Parameter& parameter : parameters) {
      tensors.push_back({exported_name(parameter.name), dtype, parameter.shape});
      largest = std::max(largest, parameter.shape.elements());
    }
    values.resize(static_cast<std::size_t>(largest));
    fs::create_directories(folder);
    writer.emplace(folder / "model.safetensors", std::move(tensors),
                   std::map<std::string, std::string>{{"format", "pt"}});
  });
  std::exception_ptr failure;  // of the writer: the other ranks still expect rank 0 in `read`
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    const TensorView whole =
        writes ? TensorView(values.data(), DType::f32, parameters[p].shape) : TensorView();
    read(static_cast<int>(p), whole);
    if (!writes || failure) continue;
    try {
      append(*writer, dtype, whole);
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
  }
  collectively(communicator, [&] {
    if (failure) std::rethrow_exception(failure);
    if (!writes) return;
    OutputFile config(folder / "config.json");  // all is on disk before either takes its name
    config.write(config_json);
    writer->finish();
    config.commit();
  });
}

}  // namespace ashlar
