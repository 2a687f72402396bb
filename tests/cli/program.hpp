// What the tests of the program `ashlar` share: its files, its JSON, and its one line for what
// cannot be used.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "support/process.hpp"
#include "support/temporary_folder.hpp"

namespace cli {

inline std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// @param line a command without its --json
inline nlohmann::json json_of(const std::string& line) {
  CAPTURE(line);
  const Finished finished = run(line + " --json");
  CAPTURE(finished.err);
  REQUIRE(finished.code == 0);
  return nlohmann::json::parse(finished.out);
}

inline void check_refused(const std::string& line, const std::string& named) {
  CAPTURE(line);
  const Finished finished = run(line);
  CAPTURE(finished.err);
  CHECK(finished.code == 2);
  CHECK(std::ranges::count(finished.err, '\n') == 1);
  CHECK(finished.err.starts_with("ashlar: "));
  CHECK(finished.err.size() < 300);
  CHECK(!contains(finished.err, "\r"));
  CHECK(contains(finished.err, named));
}

}  // namespace cli
