#include "train_gpt/hardware.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>
#include <vector>

#include "ashlar/device_memory.hpp"
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

Hardware detect_hardware(ashlar::Device device) {
  Hardware hardware;
  hardware.device = ashlar::to_string(device);
  if (device.type == ashlar::DeviceType::cuda)
    hardware.device_memory_bytes = ashlar::device_bytes(device).total;
  hardware.cpu = value_of("/proc/cpuinfo", "model name");
  if (hardware.cpu.empty()) hardware.cpu = "unknown";
  const Seat seat = take_seat();
  hardware.cores = share_of_cores(seat, {&seat, 1});
  hardware.memory_bytes =
      std::min(bytes_of("/proc/meminfo", "MemTotal:"), ashlar::detail::memory_limit("/"));
  return hardware;
}

ashlar::Device device_of(const std::string& text, const ashlar::Communicator& world) {
  ashlar::Device device = ashlar::parse_device(text);
  if (text != "cuda") return device;
  int before = 0;
  for (int rank = 0; rank < world.rank(); ++rank) before += world.same_node(rank) ? 1 : 0;
  device.index = before % ashlar::device_count(device.type);
  return device;
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
  nlohmann::ordered_json json{{"cpu", hardware.cpu},
                              {"cores", hardware.cores},
                              {"memory_bytes", hardware.memory_bytes},
                              {"device", hardware.device}};
  if (hardware.device_memory_bytes > 0) json["device_memory_bytes"] = hardware.device_memory_bytes;
  return json;
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
