// By parameter name and range, so that the number of ranks, the units and the types may have
// changed since the save.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "ashlar/checkpoint.hpp"
#include "ashlar/error.hpp"
#include "sharding/checkpoint_shards.hpp"
#include "sharding/manifest.hpp"
#include "sharding/safetensors.hpp"

namespace ashlar {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kOpenFiles = 64;

class Reader {
 public:
  Reader(fs::path directory)
      : directory_(std::move(directory)), manifest_(read_manifest(directory_)) {
    for (const SavedFile& file : manifest_.files) check_size(file);
    for (const SavedFlat& flat : manifest_.flats)
      for (const SavedParameter& parameter : flat.parameters)
        by_name_[parameter.name] = {&flat, &parameter};
  }

  const Manifest& manifest() const { return manifest_; }

  /// The checkpoint is of this model and optimizer.
  void require_match(const FlatLayout& layout, std::span<const FlatShards> shards) const {
    require_names(layout);
    for (std::size_t i = 0; i < shards.size(); ++i)
      for (const Flat::Entry& entry : layout.flats()[i].entries)
        require_match(layout.parameters()[static_cast<std::size_t>(entry.parameter)], shards[i]);
  }

  /// Fills rank r's part of one role of a flat.
  void fill(const FlatLayout& layout, const Flat& flat, int rank, std::string_view role,
            TensorView values) {
    if (values.bytes() > 0) std::memset(values.data, 0, static_cast<std::size_t>(values.bytes()));
    const std::int64_t begin = rank * flat.shard;
    for (const Flat::Entry& entry : flat.entries) {
      const std::int64_t first = std::max(entry.begin, begin);
      const std::int64_t last = std::min(entry.end, begin + flat.shard);
      if (first >= last) continue;
      const Parameter& parameter = layout.parameters()[static_cast<std::size_t>(entry.parameter)];
      read(by_name_.at(parameter.name), role, first - entry.begin,
           values.flat_slice(first - begin, last - first));
    }
  }

 private:
  struct Place {
    const SavedFlat* flat = nullptr;
    const SavedParameter* parameter = nullptr;
  };

  [[noreturn]] void refuse(const std::string& what) const {
    throw CorruptCheckpoint(
        fmt::format("{}: the checkpoint {}; resume with the model, the frozen parameters and the "
                    "optimizer that saved it",
                    manifest_path(directory_).string(), what));
  }

  void check_size(const SavedFile& file) const {
    const fs::path path = directory_ / file.name;
    std::error_code error;
    const auto bytes = static_cast<std::int64_t>(fs::file_size(path, error));
    if (error)
      throw CorruptCheckpoint(fmt::format("{}: {}, but {} lists it", path.string(), error.message(),
                                          manifest_path(directory_).string()));
    if (bytes != file.bytes)
      throw CorruptCheckpoint(fmt::format("{}: truncated or foreign: {} bytes instead of {}",
                                          path.string(), bytes, file.bytes));
  }

  /// Names the first parameter that is missing and the first that is too many.
  void require_names(const FlatLayout& layout) const {
    std::unordered_set<std::string_view> known;
    std::string differences;
    for (const Parameter& parameter : layout.parameters()) {
      known.insert(parameter.name);
      if (differences.empty() && !by_name_.contains(parameter.name))
        differences = fmt::format("has no parameter '{}'", parameter.name);
    }
    for (const SavedFlat& flat : manifest_.flats) {
      for (const SavedParameter& saved : flat.parameters) {
        if (known.contains(saved.name)) continue;
        refuse(fmt::format("{}{}has parameter '{}', which the model lacks", differences,
                           differences.empty() ? "" : " and ", saved.name));
      }
    }
    if (!differences.empty()) refuse(differences);
  }

  void require_match(const Parameter& parameter, const FlatShards& shards) const {
    const auto& [flat, saved] = by_name_.at(parameter.name);
    if (saved->shape != parameter.shape)
      refuse(fmt::format("has parameter '{}' as {}, the model as {}", parameter.name,
                         to_string(saved->shape), to_string(parameter.shape)));
    for (const auto& [role, view] : shards.saved)
      if (!flat->roles.contains(role))
        refuse(fmt::format("has no optimizer state '{}' of parameter '{}'", role, parameter.name));
    for (const auto& [role, dtype] : flat->roles)
      if (!shards.saved.contains(role))
        refuse(fmt::format("has the optimizer state '{}' of parameter '{}', which is not kept now",
                           role, parameter.name));
  }

  void read(const Place& place, std::string_view role, std::int64_t first, TensorView part) {
    const std::int64_t shard = place.flat->shard;
    for (std::int64_t done = 0; done < part.elements();) {
      const std::int64_t position = place.parameter->begin + first + done;
      const std::int64_t n = std::min(part.elements() - done, shard - position % shard);
      open(position / shard)
          .read(place.flat->tensor(role), position % shard, part.flat_slice(done, n));
      done += n;
    }
  }

  SafetensorsFile& open(std::int64_t rank) {
    const auto found = open_.find(rank);
    if (found != open_.end()) return found->second;
    if (open_.size() == kOpenFiles) open_.clear();
    const SavedFile& file = manifest_.files[static_cast<std::size_t>(rank)];
    InputFile input(directory_ / file.name);
    input.require_checksums(file.checksums);
    return open_.emplace(rank, SafetensorsFile(std::move(input))).first->second;
  }

  fs::path directory_;
  Manifest manifest_;
  std::unordered_map<std::string_view, Place> by_name_;
  std::map<std::int64_t, SafetensorsFile> open_;
};

}  // namespace

std::string load_checkpoint(Communicator& communicator, const fs::path& directory,
                            const FlatLayout& layout, std::span<const ShardView> shards) {
  std::string counters;
  const int shard = communicator.rank() % layout.ranks();
  collectively(communicator, [&] {
    require_copies(communicator, layout);
    const std::vector<FlatShards> flats = group_by_flat(layout, shards);
    Reader reader(directory);
    reader.require_match(layout, flats);
    for (std::size_t i = 0; i < flats.size(); ++i) {
      const Flat& flat = layout.flats()[i];
      for (const auto& [role, view] : flats[i].saved) reader.fill(layout, flat, shard, role, view);
      if (flats[i].rounded) reader.fill(layout, flat, shard, kWeight, *flats[i].rounded);
    }
    counters = reader.manifest().counters;
  });
  return counters;
}

CheckpointInfo inspect_checkpoint(const fs::path& directory) {
  Manifest manifest = read_manifest(directory);
  return {manifest.ranks(), std::move(manifest.counters)};
}

}  // namespace ashlar
