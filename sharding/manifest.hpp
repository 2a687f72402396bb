// manifest.json: what a checkpoint holds and where. Nothing in it depends on the ZeRO stage.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "ashlar/dtype.hpp"
#include "ashlar/shape.hpp"

namespace ashlar {

/// The role under which a flat's weights are stored, be they masters or parameters.
inline constexpr std::string_view kWeight = "weight";

struct SavedParameter {
  std::string name;
  Shape shape;
  std::int64_t begin = 0;  // first element in the flat
};

struct SavedFlat {
  std::string name;
  bool trainable = true;
  std::int64_t shard = 0;              // elements per rank
  std::map<std::string, DType> roles;  // kWeight and the optimizer's states
  std::vector<SavedParameter> parameters;

  /// The name of a role's tensor in every rank's file: "m/h.0".
  std::string tensor(std::string_view role) const { return std::string(role) + "/" + name; }
};

struct SavedFile {
  std::string name;  // relative to the manifest
  std::int64_t bytes = 0;
  std::vector<std::uint64_t> checksums;  // XXH64 of each kChecksumBlock bytes
};

struct Manifest {
  std::vector<std::string> units;
  std::vector<SavedFlat> flats;
  std::vector<SavedFile> files;  // one per rank, in rank order
  std::string counters;          // a JSON object

  int ranks() const { return static_cast<int>(files.size()); }
};

/// @throws InvalidArgument for what is no JSON object.
nlohmann::json parse_counters(std::string_view text);

/// directory/manifest.json.
std::filesystem::path manifest_path(const std::filesystem::path& directory);

/// Replaces the manifest in one step. @throws InvalidArgument naming the path, or `counters` that
/// are no JSON object.
void write_manifest(const std::filesystem::path& directory, const Manifest& manifest);

/// @throws InvalidArgument when there is none, CorruptCheckpoint when it is foreign, altered or of
/// a newer version.
Manifest read_manifest(const std::filesystem::path& directory);

}  // namespace ashlar
