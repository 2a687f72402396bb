// What a benchmark ran on, for its JSON.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "commit.hpp"

/// {"cpu": model name as the kernel says it, "cores": hardware threads, "commit": of the built
/// tree}.
inline nlohmann::ordered_json hardware() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  std::string model = "unknown";
  while (std::getline(info, line))
    if (line.starts_with("model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  return {
      {"cpu", model}, {"cores", std::thread::hardware_concurrency()}, {"commit", ASHLAR_COMMIT}};
}
