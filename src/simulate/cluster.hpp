// A cluster as the simulator sees it: one kind of device, nodes of some devices, a network between
// the nodes. Read from JSON whose keys carry their units (clusters/cluster.schema.json).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ashlar::simulate {

/// Rates are per second. Efficiencies are what a good kernel or a collective reaches of a peak.
struct Device {
  std::string name;
  double peak_flops = 0;      // products of 16-bit numbers, dense
  double peak_flops_f32 = 0;  // products of f32 numbers, as training runs them
  double memory_bytes = 0;
  double memory_rate = 0;   // bytes
  int multiprocessors = 0;  // that take a tile of a product each; 0: products are not tiled
  double product_efficiency = 1;
  double attention_efficiency = 1;         // of peak_flops, only pairs that a causal mask leaves
  double memory_efficiency = 1;            // of memory_rate, kernels that move bytes
  double attention_backward_slowdown = 1;  // backward takes this times as long per operation
  double launch_seconds = 0;               // of one kernel
  double busy_watts = 0;                   // while a kernel runs
  double idle_watts = 0;                   // else
};

/// A way between ranks, or from the host. `rate` is of one direction: within a node and from the
/// host per device, between nodes of all cards of a node together.
struct Links {
  double rate = 0;  // bytes per second
  double efficiency = 1;
  double latency_seconds = 0;
  double slowest = 1;  // a degraded one's rate by the others': each collective crosses it
  double effective_rate() const { return rate * efficiency * slowest; }
};

/// Every collective is as fast as its slowest link.
struct Cluster {
  std::string name;
  std::string gpu;  // what files of measurements call the device; may be empty
  Device device;
  int devices_per_node = 1;
  Links node;
  Links network;
  Links host;                   // rate 0: devices read the host's memory in place
  double oversubscription = 1;  // of the network: its rate is divided by it
  double overlap_slowdown = 0;  // kernels take 1 + this times as long beside a collective
  /// Bytes per second that a node sends to others in a collective.
  double network_rate() const { return network.effective_rate() / oversubscription; }
};

/// Names of the clusters that come with the program: "cpu", "dgx-a100", ...
std::span<const std::string_view> shipped_clusters();

/// A shipped cluster by its name, or the path of a file.
/// @throws InvalidArgument naming file and key: no JSON object, a key that is missing, unknown
/// (with the nearest one: a wrong unit is a wrong key) or beyond what hardware can be; or the
/// nearest shipped names.
Cluster cluster(const std::string& name_or_path);
/// Its text.
std::string cluster_json(const std::string& name_or_path);

/// @param source for messages
Cluster parse_cluster(std::string_view json, const std::string& source);

}  // namespace ashlar::simulate
