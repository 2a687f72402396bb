#include "nn/config_file.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

#include "ashlar/error.hpp"
#include "base/printable.hpp"

namespace ashlar {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kMaxSize = std::int64_t{1} << 31;
constexpr std::int64_t kMaxLayers = 10'000;
constexpr double kMaxParameters = 1e14;
constexpr int kMaxDepth = 32;

/// As much of a value as a message holds.
std::string shown(const Json& value) {
  constexpr std::size_t kMost = 80;
  const std::string text = value.dump(-1, ' ', true);
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

}  // namespace

bool is_config_path(const std::string& name) {
  std::error_code unknown;
  return name.ends_with(".json") || std::filesystem::exists(name, unknown);
}

ConfigFile::ConfigFile(const std::string& path, std::string family)
    : path_(path), family_(std::move(family)) {
  std::ifstream file(path);
  if (!file) refuse("cannot be read");
  bool deep = false;
  const auto keep = [&](int depth, Json::parse_event_t, const Json&) {
    deep = deep || depth > kMaxDepth;
    return depth <= kMaxDepth;
  };
  json_ = Json::parse(file, keep, false);
  if (deep) refuse(fmt::format("is nested more than {} levels deep", kMaxDepth));
  if (!json_.is_object()) refuse("not a JSON object");
}

std::int64_t ConfigFile::size(const char* key) const {
  const Json* found = find(key);
  if (found == nullptr)
    refuse(fmt::format("'{}{}' is missing; a {} config.json has it", prefix_, key, family_));
  if (!found->is_number_integer() || found->get<std::int64_t>() < 1 ||
      found->get<std::int64_t>() > kMaxSize)
    refuse(fmt::format("{}; it must be a whole number from 1 to {}", named(key), kMaxSize));
  return found->get<std::int64_t>();
}

std::int64_t ConfigFile::size(const char* key, std::int64_t otherwise) const {
  return has(key) ? size(key) : otherwise;
}

double ConfigFile::positive(const char* key, double otherwise) const {
  const Json* found = find(key);
  if (found == nullptr) return otherwise;
  if (!found->is_number() || !(found->get<double>() > 0))
    refuse(fmt::format("{}; it must be above 0", named(key)));
  return found->get<double>();
}

bool ConfigFile::flag(const char* key, bool otherwise) const {
  const Json* found = find(key);
  if (found == nullptr) return otherwise;
  if (!found->is_boolean()) refuse(fmt::format("{}; it must be true or false", named(key)));
  return found->get<bool>();
}

std::vector<std::int64_t> ConfigFile::tokens(const char* key, std::int64_t vocabulary) const {
  const Json* found = find(key);
  if (found == nullptr) return {};
  std::vector<std::int64_t> all;
  for (const Json& token : found->is_array() ? *found : Json::array({*found})) {
    const bool whole = token.is_number_integer();
    if (!whole || token.get<std::int64_t>() < 0 || token.get<std::int64_t>() >= vocabulary)
      refuse(fmt::format("{}; the vocabulary has tokens 0 to {}", named(key), vocabulary - 1));
    all.push_back(token.get<std::int64_t>());
  }
  return all;
}

void ConfigFile::require(const char* key, std::initializer_list<const char*> accepted) const {
  const Json* found = find(key);
  if (found == nullptr) return;
  for (const char* value : accepted)
    if (*found == value) return;
  refuse(fmt::format("{}; supported: {}", named(key), fmt::join(accepted, ", ")));
}

void ConfigFile::require_flag(const char* key, bool supported) const {
  const Json* found = find(key);
  if (found == nullptr || *found == supported) return;
  refuse(fmt::format("{}; only {} is supported", named(key), supported));
}

void ConfigFile::require_holds(const char* key, const char* value) const {
  const Json* found = find(key);
  if (found == nullptr) return;
  if (!found->is_array() || std::ranges::find(*found, Json(value)) == found->end())
    refuse(fmt::format("{}; supported: {}", named(key), value));
}

ConfigFile ConfigFile::below(const char* key) const {
  ConfigFile part;
  part.path_ = path_;
  part.family_ = family_;
  part.prefix_ = fmt::format("{}{}.", prefix_, key);
  part.json_ = Json::object();
  if (const Json* found = find(key)) {
    if (!found->is_object()) refuse(fmt::format("{}; it must be an object", named(key)));
    part.json_ = *found;
  }
  return part;
}

void ConfigFile::require_plausible(
    const char* layers_key, std::int64_t layers, double parameters,
    std::initializer_list<std::pair<const char*, std::int64_t>> sizes) const {
  if (layers > kMaxLayers)
    refuse(fmt::format("'{}' is {}; at most {} are supported", layers_key, layers, kMaxLayers));
  if (parameters <= kMaxParameters) return;
  std::string list = fmt::format("'{}' {}", layers_key, layers);
  for (const auto& [key, value] : sizes) list += fmt::format(", '{}' {}", key, value);
  refuse(fmt::format("{} make more than {:.0e} parameters; correct the one that is wrong", list,
                     kMaxParameters));
}

void ConfigFile::refuse(const std::string& complaint) const {
  throw InvalidArgument(printable(fmt::format("{}: {}", path_, complaint)));
}

const Json* ConfigFile::find(const char* key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

std::string ConfigFile::named(const char* key) const {
  return fmt::format("'{}{}' is {}", prefix_, key, shown(*find(key)));
}

}  // namespace ashlar
