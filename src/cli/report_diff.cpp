#include <fmt/format.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "base/printable.hpp"
#include "cli/report_step.hpp"

namespace ashlar::cli {
namespace {

using Json = nlohmann::json;

Json read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw InvalidArgument(fmt::format("--diff {}: cannot be read", path));
  Json json = Json::parse(file, nullptr, false);
  if (!json.is_object())
    throw InvalidArgument(
        fmt::format("--diff {}: is not one report; write it by `ashlar report --json`", path));
  return json;
}

constexpr int kDeepest = 8;

/// Numbers and words by their path: "peak_bytes/total"; the list of tensors apart.
void flatten(const Json& json, const std::string& path, std::map<std::string, Json>& flat,
             int depth = 0) {
  if (depth > kDeepest)
    throw InvalidArgument(
        "--diff: no report is nested so deeply; write it by `ashlar report --json`");
  for (const auto& [key, value] : json.items()) {
    const std::string name = path.empty() ? key : path + "/" + key;
    if (value.is_object())
      flatten(value, name, flat, depth + 1);
    else if (!value.is_array())
      flat[name] = value;
  }
}

std::string shown(const std::map<std::string, Json>& flat, const std::string& key) {
  const auto found = flat.find(key);
  if (found == flat.end()) return "-";
  return printable(found->second.is_string() ? found->second.get<std::string>()
                                             : found->second.dump());
}

}  // namespace

void print_difference(const std::string& before, const std::string& after) {
  std::map<std::string, Json> a, b;
  flatten(read(before), "", a);
  flatten(read(after), "", b);
  std::set<std::string> keys;
  for (const auto& [key, value] : a) keys.insert(key);
  for (const auto& [key, value] : b) keys.insert(key);
  bool differs = false;
  for (const std::string& key : keys) {
    if (a.contains(key) && b.contains(key) && a[key] == b[key]) continue;
    std::string change;
    const bool numbers = a.contains(key) && b.contains(key) && a[key].is_number_integer() &&
                         b[key].is_number_integer();
    if (numbers) {
      const std::int64_t more = b[key].get<std::int64_t>() - a[key].get<std::int64_t>();
      change = fmt::format("{}{}", more > 0 ? "+" : "",
                           key.find("bytes") != std::string::npos || key.starts_with("transients")
                               ? format_bytes(more)
                               : std::to_string(more));
    }
    if (!differs) fmt::print("{:<40}{:>20}{:>20}{:>14}\n", "", before, after, "change");
    differs = true;
    fmt::print("{:<40}{:>20}{:>20}{:>14}\n", key, shown(a, key), shown(b, key), change);
  }
  if (!differs) fmt::print("the two reports say the same\n");
}

}  // namespace ashlar::cli
