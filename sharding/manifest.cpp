// The manifest as JSON, sealed by a checksum of its own.
#include "sharding/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "ashlar/error.hpp"
#include "base/hash.hpp"
#include "sharding/file.hpp"

namespace ashlar {
namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "ashlar-checkpoint";
constexpr int kVersion = 1;

std::string hex(std::uint64_t value) { return fmt::format("{:016x}", value); }

std::uint64_t from_hex(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size() || text.size() != 16)
    throw CorruptCheckpoint(fmt::format("'{}' is not a checksum", text));
  return value;
}

std::string seal(const json& content) {
  const std::string text = content.dump();
  return hex(checksum(std::as_bytes(std::span(text))));
}

json to_json(const SavedFlat& flat) {
  json roles = json::object();
  for (const auto& [role, dtype] : flat.roles) roles[role] = name_of(dtype);
  json parameters = json::array();
  for (const SavedParameter& parameter : flat.parameters)
    parameters.push_back({{"name", parameter.name},
                          {"shape", parameter.shape.extents()},
                          {"begin", parameter.begin}});
  return {{"name", flat.name},
          {"trainable", flat.trainable},
          {"shard", flat.shard},
          {"roles", roles},
          {"parameters", parameters}};
}

json to_json(const SavedFile& file) {
  json checksums = json::array();
  for (const std::uint64_t sum : file.checksums) checksums.push_back(hex(sum));
  return {{"name", file.name}, {"bytes", file.bytes}, {"checksums", checksums}};
}

void require(bool condition, std::string_view what) {
  if (!condition) throw CorruptCheckpoint(std::string(what));
}

SavedParameter to_parameter(const json& value, std::int64_t flat_elements) {
  const auto extents = value.at("shape").get<std::vector<std::int64_t>>();
  SavedParameter parameter{value.at("name"), Shape(extents), value.at("begin")};
  std::int64_t elements = 1;
  for (const std::int64_t extent : extents)
    require(extent >= 0 && !__builtin_mul_overflow(elements, extent, &elements),
            fmt::format("parameter '{}' has the impossible shape {}", parameter.name,
                        to_string(parameter.shape)));
  require(parameter.begin >= 0 && parameter.begin <= flat_elements &&
              elements <= flat_elements - parameter.begin,
          fmt::format("parameter '{}' does not lie in its flat", parameter.name));
  return parameter;
}

SavedFlat to_flat(const json& value, std::int64_t ranks) {
  SavedFlat flat{.name = value.at("name"),
                 .trainable = value.at("trainable"),
                 .shard = value.at("shard"),
                 .roles = {},
                 .parameters = {}};
  std::int64_t elements = 0;
  require(flat.shard >= 0 && !__builtin_mul_overflow(flat.shard, ranks, &elements),
          fmt::format("flat '{}' has an impossible size", flat.name));
  for (const auto& [role, dtype] : value.at("roles").items())
    flat.roles[role] = dtype_from_name(dtype.get<std::string>());
  for (const json& parameter : value.at("parameters"))
    flat.parameters.push_back(to_parameter(parameter, elements));
  return flat;
}

SavedFile to_file(const json& value) {
  SavedFile file{.name = value.at("name"), .bytes = value.at("bytes"), .checksums = {}};
  const std::filesystem::path name(file.name);
  require(name.is_relative() && std::ranges::find(name, "..") == name.end(),
          fmt::format("file '{}' lies outside the checkpoint", file.name));
  for (const json& sum : value.at("checksums")) file.checksums.push_back(from_hex(sum));
  return file;
}

Manifest to_manifest(json content) {
  require(content.is_object() && content.value("format", json()) == kFormat,
          "not a checkpoint of Ashlar");
  require(content.at("version") == kVersion,
          fmt::format("version {} of the format, but this program reads {}",
                      content.at("version").dump(), kVersion));
  const std::string sealed = content.at("checksum");
  content.erase("checksum");
  require(sealed == seal(content), "altered: its checksum differs; use another copy");
  Manifest manifest;
  manifest.units = content.at("units").get<std::vector<std::string>>();
  for (const json& file : content.at("files")) manifest.files.push_back(to_file(file));
  for (const json& flat : content.at("flats"))
    manifest.flats.push_back(to_flat(flat, manifest.ranks()));
  manifest.counters = content.at("counters").dump();
  return manifest;
}

}  // namespace

json parse_counters(std::string_view text) {
  json counters = json::parse(text, nullptr, false);
  if (!counters.is_object())
    throw InvalidArgument(
        fmt::format("the counters of a checkpoint are not a JSON object: {}", text));
  return counters;
}

std::filesystem::path manifest_path(const std::filesystem::path& directory) {
  return directory / "manifest.json";
}

void write_manifest(const std::filesystem::path& directory, const Manifest& manifest) {
  json content{{"format", kFormat},
               {"version", kVersion},
               {"counters", parse_counters(manifest.counters)},
               {"units", manifest.units},
               {"flats", json::array()},
               {"files", json::array()}};
  for (const SavedFlat& flat : manifest.flats) content["flats"].push_back(to_json(flat));
  for (const SavedFile& file : manifest.files) content["files"].push_back(to_json(file));
  content["checksum"] = seal(content);
  OutputFile file(manifest_path(directory));
  file.write(content.dump(1));
  file.write("\n");
  file.commit();
}

Manifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = manifest_path(directory);
  if (!std::filesystem::exists(path))
    throw InvalidArgument(
        fmt::format("no checkpoint in {}: there is no manifest.json", directory.string()));
  const std::string text = read_text(path);
  try {
    return to_manifest(json::parse(text));
  } catch (const json::exception& error) {
    throw CorruptCheckpoint(fmt::format("{}: {}", path.string(), error.what()));
  } catch (const InvalidArgument& error) {
    throw CorruptCheckpoint(fmt::format("{}: {}", path.string(), error.what()));
  }
}

}  // namespace ashlar
