#include "train_gpt/hardware.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>
#include <vector>

#include "memory/control_group.hpp"
#include "train_gpt/gather.hpp"

namespace train_gpt {
namespace {

/// The rest of the first line of a file of "key : value" lines that starts with `key`.
std::string value_of(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t first = line.find_first_not_of(" \t", line.find(':') + 1);
    return first == std::string::npos ? "" : line.substr(first);
  }
  return {};
}

std::int64_t number(std::string_view text) {
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// Of lines such as "VmHWM:  1234 kB", in bytes.
std::int64_t bytes_of(const char* path, std::string_view key) {
  return number(value_of(path, key)) * 1024;
}

std::int64_t status_bytes(std::string_view key) { return bytes_of("/proc/self/status", key); }

bool reset_peak() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

}  // namespace

Hardware detect_hardware() {
  Hardware hardware;
  hardware.cpu = value_of("/proc/cpuinfo", "model name");
  if (hardware.cpu.empty()) hardware.cpu = "unknown";
  const Seat seat = take_seat();
  hardware.cores = share_of_cores(seat, {&seat, 1});
  hardware.memory_bytes =
      std::min(bytes_of("/proc/meminfo", "MemTotal:"), ashlar::detail::memory_limit("/"));
  return hardware;
}

int default_threads(ashlar::Communicator& world) {
  const std::vector<Seat> seats = gather(world, take_seat(), "cores");
  std::vector<Seat> node;
  for (int rank = 0; rank < world.size(); ++rank)
    if (world.same_node(rank)) node.push_back(seats[static_cast<std::size_t>(rank)]);
  const int mine = share_of_cores(seats[static_cast<std::size_t>(world.rank())], node);
  return std::ranges::min(gather(world, mine, "threads"));
}

nlohmann::ordered_json to_json(const Hardware& hardware) {
  return {
      {"cpu", hardware.cpu}, {"cores", hardware.cores}, {"memory_bytes", hardware.memory_bytes}};
}

ResidentMeter::ResidentMeter()
    : reset_(reset_peak()), resident_(status_bytes("VmRSS:")), shared_(status_bytes("RssShmem:")) {}

std::int64_t ResidentMeter::peak_bytes(std::int64_t own_window_bytes, int ranks_in_process) const {
  const std::int64_t shared_growth = status_bytes("RssShmem:") - shared_;
  const std::int64_t of_peers = std::max<std::int64_t>(shared_growth - own_window_bytes, 0);
  const std::int64_t peak = status_bytes("VmHWM:") - resident_ - of_peers;
  return std::max<std::int64_t>(peak, 0) / ranks_in_process;
}

}  // namespace train_gpt
