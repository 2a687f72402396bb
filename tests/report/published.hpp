// Published numbers, which do not come with the repository: ASHLAR_DATA_DIR names their folder.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace published {

using Row = std::map<std::string, std::string>;

/// Empty where there is none.
inline std::filesystem::path folder() {
  const char* set = std::getenv("ASHLAR_DATA_DIR");
  const std::filesystem::path data = set != nullptr ? set : "../shared/data";
  for (const auto& base : {data, std::filesystem::path(ASHLAR_SOURCE_DIR) / data})
    if (std::filesystem::exists(base / "published")) return base / "published";
  return {};
}

/// Fields of a line of CSV; quotes keep commas together.
inline std::vector<std::string> fields(const std::string& line) {
  std::vector<std::string> all(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"')
      quoted = !quoted;
    else if (c == ',' && !quoted)
      all.emplace_back();
    else
      all.back() += c;
  }
  return all;
}

inline std::vector<Row> read(const std::string& name) {
  std::ifstream file(folder() / name);
  std::string line;
  std::getline(file, line);
  const std::vector<std::string> keys = fields(line);
  std::vector<Row> rows;
  while (std::getline(file, line)) {
    const std::vector<std::string> values = fields(line);
    Row& row = rows.emplace_back();
    for (std::size_t i = 0; i < keys.size() && i < values.size(); ++i) row[keys[i]] = values[i];
  }
  return rows;
}

}  // namespace published
