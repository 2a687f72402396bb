// Published measurements, which do not come with the repository (ASHLAR_DATA_DIR).
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace ashlar::simulate {

/// Empty where the file is not.
inline std::string published(const std::string& name) {
  const char* set = std::getenv("ASHLAR_DATA_DIR");
  const std::filesystem::path data = set != nullptr ? set : "../shared/data";
  for (const auto& base : {data, std::filesystem::path(ASHLAR_SOURCE_DIR) / data})
    if (std::filesystem::exists(base / "published" / name)) return base / "published" / name;
  return {};
}

}  // namespace ashlar::simulate
