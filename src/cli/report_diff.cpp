#include <fmt/format.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <sstream>
#include <vector>

#include "ashlar/error.hpp"
#include "ashlar/memory_resource.hpp"
#include "base/printable.hpp"
#include "cli/report_step.hpp"

namespace ashlar::cli {
namespace {

using Json = nlohmann::json;

Json read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw InvalidArgument(printable(fmt::format("--diff {}: cannot be read", path)));
  std::ostringstream text;
  text << file.rdbuf();
  Json json = Json::parse(text.str(), nullptr, false);
  if (!json.is_object())
    throw InvalidArgument(printable(
        fmt::format("--diff {}: is not one report; write it by `ashlar report --json`", path)));
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

struct Change {
  std::string key;
  Json before, after;                // null where there is none
  std::optional<std::int64_t> more;  // of whole numbers
};

std::vector<Change> changes(const Json& before, const Json& after) {
  std::map<std::string, Json> a, b;
  flatten(before, "", a);
  flatten(after, "", b);
  std::map<std::string, Json> keys = a;
  keys.insert(b.begin(), b.end());
  std::vector<Change> all;
  for (const auto& [key, unused] : keys) {
    Change change{key, a.contains(key) ? a[key] : Json(), b.contains(key) ? b[key] : Json(), {}};
    if (change.before == change.after) continue;
    if (change.before.is_number_integer() && change.after.is_number_integer())
      change.more = static_cast<std::int64_t>(change.after.get<std::uint64_t>() -
                                              change.before.get<std::uint64_t>());
    all.push_back(std::move(change));
  }
  return all;
}

std::string shown(const Json& value) {
  if (value.is_null()) return "-";
  return printable(value.is_string() ? value.get<std::string>() : value.dump());
}

std::string shown(const Change& change) {
  if (!change.more) return "";
  const bool bytes = change.key.find("bytes") != std::string::npos ||
                     change.key.starts_with("transients") || change.key.starts_with("at_peak");
  return fmt::format("{}{}", *change.more > 0 ? "+" : "",
                     bytes ? format_bytes(*change.more) : std::to_string(*change.more));
}

Json json_of(std::span<const Change> all) {
  Json json = Json::object();
  for (const Change& change : all) {
    json[change.key] = {{"before", change.before}, {"after", change.after}};
    if (change.more) json[change.key]["change"] = *change.more;
  }
  return json;
}

}  // namespace

void print_difference(const std::string& before, const std::string& after, bool json) {
  const Json first = read(before), second = read(after);
  const std::vector<Change> all = changes(first, second);
  if (json) {
    fmt::print("{}\n", json_of(all).dump(2, ' ', false, Json::error_handler_t::replace));
    return;
  }
  if (all.empty()) {
    fmt::print("the two reports say the same\n");
    return;
  }
  fmt::print("{:<40}{:>20}{:>20}{:>14}\n", "", before, after, "change");
  for (const Change& change : all)
    fmt::print("{:<40}{:>20}{:>20}{:>14}\n", printable(change.key), shown(change.before),
               shown(change.after), shown(change));
}

}  // namespace ashlar::cli
